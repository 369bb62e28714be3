"""Which model is in service: judged, put there, taken back, and the history of it."""
