"""Owns requests, from a client's bytes to the last of its stream."""
