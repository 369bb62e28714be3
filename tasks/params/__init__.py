"""The sections of params.yaml, a module each, and `whole`, which checks them all at once."""
