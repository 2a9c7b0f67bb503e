"""A model directory: where it is, and one reader for all that describes its tokens."""
