"""The synthetic corpus: one file per kind of task, joined by ``mixture`` into conversations."""
