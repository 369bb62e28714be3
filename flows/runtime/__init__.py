"""What a run stands on: its lock, its server, its end, and the way back."""
