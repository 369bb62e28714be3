"""The training loop, its checkpoint and its curve."""
