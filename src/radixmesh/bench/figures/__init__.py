"""What was measured, as numbers."""
