"""The largest number for which something still fits: by doubling, then by halving the gap. Knows no model."""

from collections.abc import Callable

GAP = 16
"""The result is short of the largest by at most its sixteenth."""


def largest_fitting(fits: Callable[[int], bool], limit: int) -> int:
    """Find the largest number that fits.

    Args:
        fits: tells of a number whether it does; whatever is below a number that fits, fits.
        limit: numbers above are not tried.

    Returns:
        The largest one that was seen to fit, 0 where not even 1 does.
    """
    fitting, failing = 0, 1
    while failing <= limit and fits(failing):
        fitting, failing = failing, 2 * failing
    while failing - fitting > max(fitting // GAP, 1):
        middle = (fitting + failing) // 2
        if middle <= limit and fits(middle):
            fitting = middle
        else:
            failing = middle
    return fitting
