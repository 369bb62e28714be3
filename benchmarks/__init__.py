"""Measure what the pipeline takes, each time beside what it could take at best."""
