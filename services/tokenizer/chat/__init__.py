"""Chat messages to text."""
