"""Plans to tokens."""
