"""What is in work."""
