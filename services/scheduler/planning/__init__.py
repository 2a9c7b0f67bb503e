"""Plans, and what their reports change."""
