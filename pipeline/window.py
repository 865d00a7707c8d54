"""Small reads at ascending places of a remote file -> few requests, each for a window of it.

A request costs as much time as a megabyte. Where little lies between two reads, a large window answers many of them;
where much does, a small one leaves it out.
"""

from collections.abc import Callable

SMALL_BYTES, LARGE_BYTES = 1 << 14, 1 << 20
SMALL_GAP_BYTES = LARGE_BYTES // 8
"""Mean gap up to which everything is read: a large window then answers for eight of them, or more."""
_WEIGHT_OF_LAST_GAP = 1 / 8


class WindowReader:
    """Call it with a place and a number of bytes. Holds one window."""

    def __init__(self, get_range: Callable[[int, int], bytes], num_bytes: int) -> None:
        """
        Args:
            get_range: first byte, number of bytes -> these bytes, which are there.
            num_bytes: of the file.
        """
        self._get_range, self._num_bytes = get_range, num_bytes
        self._window, self._start = b"", 0
        self._last_end = 0
        self._mean_gap = float(SMALL_GAP_BYTES)

    def __call__(self, place: int, num_bytes: int) -> bytes:
        """These bytes; fewer only where the file ends."""
        end = min(place + num_bytes, self._num_bytes)
        if end <= place:
            return b""
        gap, self._last_end = place - self._last_end, end
        if gap >= 512:  # what was passed over, and no mere padding
            self._mean_gap += (gap - self._mean_gap) * _WEIGHT_OF_LAST_GAP
        if place < self._start or end > self._start + len(self._window):
            window_bytes = LARGE_BYTES if self._mean_gap <= SMALL_GAP_BYTES else SMALL_BYTES
            num_wanted = min(max(end - place, window_bytes), self._num_bytes - place)
            self._window, self._start = self._get_range(place, num_wanted), place
        return self._window[place - self._start : end - self._start]
