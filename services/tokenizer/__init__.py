"""Text to token ids; chooses who serves."""
