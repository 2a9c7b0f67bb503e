"""A model's directory: its configuration, checked, and its tensors."""
