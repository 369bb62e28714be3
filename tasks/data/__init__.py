"""Datasets: where they come from, how they are read, split and checked."""
