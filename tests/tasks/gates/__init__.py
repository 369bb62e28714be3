"""What a model has to pass."""
