"""The window of appends that one follower was sent and has not answered, bounded by count and by bytes."""

from __future__ import annotations

from collections import deque


class Inflights:
    """Each append in flight by its last index, oldest first, so that one acknowledgement frees all it covers.

    A refusal halves how many there may be, and each that is acknowledged lets one more pass again. Without that, a
    network that reorders turns a wide window into a storm: every append that overtook another is refused, and every one
    that did not has the whole window sent anew.
    """

    __slots__ = ("_window", "bytes", "count_limit", "max_bytes", "max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count_limit = max_count
        """How many there may be at this moment: 1 to ``max_count``."""
        self.bytes = 0
        self._window: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._window)

    def is_full(self) -> bool:
        """Whether nothing more may be sent. The append that reaches the byte limit is still let through."""
        return len(self._window) >= self.count_limit or self.bytes >= self.max_bytes

    def add(self, last_index: int, size_bytes: int) -> None:
        """An append with entries up to the index was sent; indices only grow until :meth:`clear`."""
        self._window.append((last_index, size_bytes))
        self.bytes += size_bytes

    def free_to(self, index: int) -> None:
        """Everything up to the index is acknowledged."""
        window = self._window
        while window and window[0][0] <= index:
            self.bytes -= window.popleft()[1]
            self.count_limit = min(self.count_limit + 1, self.max_count)

    def refused(self) -> None:
        """Something that was streamed did not fit: send less at once."""
        self.count_limit = max(1, self.count_limit // 2)

    def clear(self) -> None:
        """Forget what was sent: it will be sent again."""
        self._window.clear()
        self.bytes = 0
