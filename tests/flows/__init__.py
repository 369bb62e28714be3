"""When the stages run."""
