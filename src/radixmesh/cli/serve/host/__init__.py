"""This machine, and fresh processes on it."""
