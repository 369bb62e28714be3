"""The same model behind servers as they come, each in an environment of its own: benchmarks/load.py."""
