"""A classifier: preprocessing and network, its files, its batches."""
