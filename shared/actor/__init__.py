"""The frame of each service: its mailbox and tasks, and the whole of its ``__main__``."""
