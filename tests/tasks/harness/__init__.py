"""What every stage runs inside."""
