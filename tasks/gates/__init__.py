"""What a model has to pass before it is published."""
