"""What a run stands on."""
