"""What a run came to: on the terminal, on a page, in Prefect's UI."""
