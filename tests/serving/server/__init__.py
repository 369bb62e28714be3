"""What serving.server promises."""
