"""Prefect flows: when the stages run."""
