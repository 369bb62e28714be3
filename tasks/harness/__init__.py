"""What every stage runs inside: its inputs, its outputs, its lock, its end."""
