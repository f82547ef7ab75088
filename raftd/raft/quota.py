"""How much this leader lets be proposed before something commits, so that a stuck quorum cannot fill the memory."""

from __future__ import annotations

from collections import deque


class UncommittedQuota:
    """Counts only data proposed to this leader in this term; a predecessor's tail and empty entries weigh nothing."""

    __slots__ = ("_open", "bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._open: deque[tuple[int, int]] = deque()
        """(last index, bytes) of each proposal, oldest first."""

    def accepts(self, size_bytes: int) -> bool:
        """An empty entry always fits; anything fits when nothing is open, or it could never be proposed."""
        return not size_bytes or not self.bytes or self.bytes + size_bytes <= self.limit_bytes

    def add(self, last_index: int, size_bytes: int) -> None:
        """A proposal was appended, up to that index."""
        if size_bytes:
            self._open.append((last_index, size_bytes))
            self.bytes += size_bytes

    def release_to(self, index: int) -> None:
        """Everything up to the index is committed."""
        while self._open and self._open[0][0] <= index:
            self.bytes -= self._open.popleft()[1]

    def clear(self) -> None:
        """A term of leadership begins or ends."""
        self._open.clear()
        self.bytes = 0
