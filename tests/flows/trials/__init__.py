"""What a search is made of."""
