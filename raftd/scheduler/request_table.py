"""The table of requests: what each id stands for, found by the id, in the order in which they came.

What may live here: the packing and the container; when a record is forgotten is a rule of ``retention``. There is one
for every request of the last hour, and hardly any is asked for again, so each is a few bytes (``compact``) under its id
as a number (``requests.key_of``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from raftd.scheduler.compact import pack, unpack
from raftd.scheduler.model import RequestRecord
from raftd.scheduler.requests import id_of, key_of
from raftd.scheduler.table import Table

_BUCKETS = 1_021
"""A prime, so that whatever the ids have in common does not gather them in one place."""


def pack_request(number: int, record: RequestRecord) -> tuple[int, bytes]:
    """The key and the bytes of the record that came as this one of all."""
    numbers = (number, record.first_task_id, record.count, record.job_id or 0)
    return key_of(record.request_id), pack(record.expires_at_ms, (), numbers, (record.digest,))


def unpack_request(key: int, data: bytes) -> tuple[int, RequestRecord]:
    """The number and the record as they were."""
    expires_at_ms, _, (number, first_task_id, count, job_id), at = unpack(data)
    return number, RequestRecord(id_of(key), data[at:], first_task_id, count, job_id or None, expires_at_ms)


class RequestTable:
    """Records of requests, numbered from 1 on in the order in which they come.

    Each is in line until its time is over; then it is dropped, or held for as long as its tasks are known.

    Attributes:
        oldest_number: of the first record in line, or of the next one where there is none.
        next_number: that the next record gets.
    """

    __slots__ = ("_keys", "_table", "next_number", "oldest_number")

    def __init__(self, oldest_number: int = 1, next_number: int = 1) -> None:
        self._table: Table[bytes] = Table(buckets=_BUCKETS)
        self._keys: deque[int] = deque()
        self.oldest_number = oldest_number
        self.next_number = next_number

    def __len__(self) -> int:
        return len(self._table)

    def get(self, request_id: str) -> RequestRecord | None:
        """What this id stands for, or None."""
        key = key_of(request_id)
        data = self._table.get(key)
        return None if data is None else unpack_request(key, data)[1]

    @property
    def oldest(self) -> RequestRecord | None:
        """The first record in line, or None."""
        if not self._keys:
            return None
        key = self._keys[0]
        return unpack_request(key, self._table[key])[1]

    def add(self, record: RequestRecord) -> None:
        """Keep the answer to a request whose id is not known yet."""
        key, data = pack_request(self.next_number, record)
        self._table.put(key, data)
        self._keys.append(key)
        self.next_number += 1

    def forget_oldest(self) -> None:
        """Drop the first record in line.

        Raises:
            IndexError: there is none.
        """
        self._table.remove(self._keys.popleft())
        self.oldest_number += 1

    def hold_oldest(self) -> None:
        """Take the first record out of the line and keep it.

        Raises:
            IndexError: there is none.
        """
        self._keys.popleft()
        self.oldest_number += 1

    def forget_held(self, request_id: str) -> None:
        """Drop the record of this id if it is held."""
        key = key_of(request_id)
        data = self._table.get(key)
        if data is not None and _number_of(data) < self.oldest_number:
            self._table.remove(key)

    def items(self) -> Iterator[tuple[int, RequestRecord]]:
        """Every record with its number, in the order in which they came."""
        numbered = sorted((_number_of(data), key, data) for key, data in self._table.items())
        return (unpack_request(key, data) for _, key, data in numbered)

    def values(self) -> Iterator[RequestRecord]:
        """Every record, in that order."""
        return (record for _, record in self.items())

    def freeze(self) -> tuple[dict[int, bytes], ...]:
        """The records of this moment, as chunks that never change any more: read them by ``unpack_request``."""
        return self._table.freeze()

    @classmethod
    def thaw(cls, chunks: Iterable[dict[int, bytes]], oldest_number: int, next_number: int) -> RequestTable:
        """A table of these records, whatever the order in which they are given."""
        table = cls(oldest_number, next_number)
        ordered = []
        for chunk in chunks:
            for key, data in chunk.items():
                table._table.put(key, data)
                number = _number_of(data)
                if number >= oldest_number:
                    ordered.append((number, key))
        table._keys.extend(key for _, key in sorted(ordered))
        return table


def _number_of(data: bytes) -> int:
    return unpack(data)[2][0]
