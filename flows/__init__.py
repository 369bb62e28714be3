"""When the stages run: the training flow, its schedule, and what a run came to."""
