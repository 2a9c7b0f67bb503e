"""A mesh that is kept running."""
