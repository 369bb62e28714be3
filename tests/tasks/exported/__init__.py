"""Models as they are served."""
