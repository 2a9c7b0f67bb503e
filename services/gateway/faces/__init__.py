"""What clients speak; none knows of another."""
