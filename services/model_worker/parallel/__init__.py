"""The ranks' named groups."""
