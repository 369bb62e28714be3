"""Scores, suspects and pictures."""
