"""What a search is made of: its space, its study, the checkouts of its trials, and what it came to."""
