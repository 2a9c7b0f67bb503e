"""The scheduler among the others: its worker group, and what it tells of itself."""
