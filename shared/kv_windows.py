"""How many KV pages a window needs: one rule for the worker, which makes the pools, and the scheduler, which shares
them out."""


def window_reach(window: int, page_size: int) -> int:
    """Pages right before a page border that a window shows behind it, if there are as many.

    Args:
        window: tokens that a query sees, its own included.
    """
    return max(1, -(-(window - 1) // page_size))


def least_pages(window: int | None, page_size: int) -> int:
    """With fewer a window cannot move on: a page more than it shows, and one, as what is known of a sequence is behind
    what is under way. Without a window, one page."""
    return 1 if window is None else window_reach(window, page_size) + 2


def longest_sequence(num_pages: int, window: int | None, page_size: int) -> int | None:
    """Tokens of the longest sequence for which a group's pages are enough; None: for any."""
    return num_pages * page_size if window is None or num_pages < least_pages(window, page_size) else None
