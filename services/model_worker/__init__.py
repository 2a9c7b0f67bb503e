"""Weights, KV contents and sampling; one process per rank."""
