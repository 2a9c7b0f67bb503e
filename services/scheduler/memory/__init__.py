"""KV memory: pages, the prefix cache, and what each sequence has of it."""
