"""Whole runs, as a user starts them: minutes, not seconds."""
