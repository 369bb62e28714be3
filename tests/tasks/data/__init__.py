"""Datasets: fetched, read, split, checked."""
