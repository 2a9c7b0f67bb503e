"""The worker group: whom it works for, and one order of plans for its ranks."""
