"""What a process finds on its machine."""
