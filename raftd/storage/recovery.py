"""Reading the log back: every segment, every record, and the judgement whether a crash explains what is there.

What may live here: the walk over the segments and the replay of records into entries and hard state. It only reads;
``wal`` cuts a torn tail and finishes an interrupted roll, with what is found here.

What a crash explains, and nothing else is accepted:

- the last record of the last segment is torn (``record``): it was never acknowledged, it is cut;
- the last segment has a header and no record, and the segment before it lacks its seal: the roll did not finish;
- a file under the temporary name: it is removed.

A log may begin with a later segment than the first: the segments before it held only what is in a snapshot, and were
purged, oldest first. Where one is missing in between, or where no snapshot covers what is gone, it is damage
(``directory`` looks at the snapshots).

The seal of a segment is written only after the next segment has its name durably, and no record before the seal is
durable. So a sealed segment without a successor, or an unsealed one before a segment with records, is damage: a file
that was there is gone. One record is on its way at any time and it fills whole sectors, so a crash can hurt only it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raftd.raft.types import Entry, HardState
from raftd.storage.errors import DamagedLog
from raftd.storage.filesystem import FileSystem
from raftd.storage.record import (
    SECTOR_BYTES,
    Base,
    Damage,
    EndOfLog,
    Record,
    RecordKind,
    Torn,
    is_zero_from,
    scan_record,
)
from raftd.storage.segment import SegmentHeader, decode_header, encode_seal, parse_segment_name


@dataclass(frozen=True, slots=True)
class TornTail:
    """The last write did not finish and was cut; it had not been acknowledged.

    Attributes:
        file: the segment.
        offset: where the cut record began, in bytes.
        end: the end of its last sector that is not zero.
    """

    file: str
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the log says after a restart.

    Attributes:
        hard_state: the last one written.
        entries: every entry that was not superseded, in order, without gaps, from behind the base on.
        torn_tail: what was cut off the end, if anything.
        base_index: the entry that the log begins behind; 0 unless it was compacted or replaced by a snapshot.
        base_term: its term.
    """

    hard_state: HardState
    entries: list[Entry]
    torn_tail: TornTail | None
    base_index: int = 0
    base_term: int = 0

    @property
    def last_index(self) -> int:
        """The index of the last entry; the base where there is none."""
        return self.base_index + len(self.entries)

    def term(self, index: int) -> int | None:
        """The term of an entry from the base on; None for one that is not there."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self.entries[index - self.base_index - 1].term
        return None


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the log goes on, in its last segment.

    Attributes:
        file: the segment's path.
        header: its header.
        offset: where the next record goes.
        number: the number of the next record.
        chain: the checksum of the last record, or of the header.
        last_record: the bytes of the last record, or of the header where there is none; they may have been read from
            the page cache only, and are written again before anything is built on them.
    """

    file: str
    header: SegmentHeader
    offset: int
    number: int
    chain: int
    last_record: bytes


@dataclass(frozen=True, slots=True)
class Walk:
    """The result of reading all segments.

    Attributes:
        recovered: the log's content.
        tail: where it goes on.
        before: the end of the segment before, when the last one has no record: its seal may be missing or not synced.
        segments: (path, first index) of every segment, in order.
        replaced: how many of them hold nothing any more, for a snapshot has taken their place.
    """

    recovered: Recovered
    tail: Tail
    before: Tail | None
    segments: list[tuple[str, int]]
    replaced: int


@dataclass(slots=True)
class Replay:
    """Records in order in, entries and hard state out. An invariant that fails is damage, said in a ``ValueError``.

    ``base`` is what the log begins behind. In a log whose first segments were purged a record may begin to replace
    entries below it, for they were still there then: those are skipped until it has reached the base again, and it
    must, for what was purged was committed, and with it what came to stand in its place.
    """

    base: Base = (0, 0)
    hard_state: HardState | None = None
    entries: list[Entry] = field(default_factory=list)
    skipped_to: int = 0
    """The last index below the base that was replaced and skipped; 0 where nothing is being skipped."""
    replaced: bool = False
    """Set when a snapshot has taken the place of everything before a record."""

    def next_index(self) -> int:
        """The index after the last entry."""
        return self.skipped_to + 1 if self.skipped_to else self.base[0] + 1 + len(self.entries)

    def apply(self, record: Record) -> None:
        """Add a record. An entry at or below the last index takes the place of that one and of all behind it."""
        if record.base is not None:
            self.base, self.entries, self.skipped_to, self.replaced = record.base, [], 0, True
        for entry in record.entries:
            if entry.index != self.next_index():
                self._truncate(entry)
            if entry.index <= self.base[0]:
                self._skip(entry)
            else:
                self.skipped_to = 0
                self.entries.append(entry)
        if record.hard_state is not None:
            self._set_hard_state(record.hard_state)

    def _truncate(self, entry: Entry) -> None:
        if not 0 < entry.index < self.next_index():
            raise ValueError(f"entry {entry.index} where entry {self.next_index()} must follow")
        position = entry.index - self.base[0] - 1
        committed = self.hard_state is not None and entry.index <= self.hard_state.commit
        # A lower term may replace a higher one (figure 7 of the paper), but nothing replaces what is committed.
        if committed and (position < 0 or entry != self.entries[position]):
            raise ValueError(f"entry {entry.index} of term {entry.term} replaces a committed one")
        del self.entries[max(0, position) :]

    def _skip(self, entry: Entry) -> None:
        self.skipped_to = entry.index
        if entry.index == self.base[0]:
            self.base = (entry.index, entry.term)
            self.skipped_to = 0

    def _set_hard_state(self, new: HardState) -> None:
        old = self.hard_state
        if old is not None and (new.term < old.term or new.commit < old.commit):
            raise ValueError("a hard state that goes back")
        if old is not None and new.term == old.term and old.vote not in (0, new.vote):
            raise ValueError(f"a second vote in term {new.term}")
        self.hard_state = new

    def finish(self) -> HardState:
        """The hard state, checked against the entries."""
        if self.hard_state is None:
            raise ValueError("no hard state in the whole log")
        if self.skipped_to:
            raise ValueError(f"the log ends at {self.skipped_to}, and what was compacted at {self.base[0]}")
        if self.hard_state.commit >= self.next_index():
            raise ValueError(
                f"commit is {self.hard_state.commit}, but the log ends at {self.next_index() - 1}"
            )
        if (self.entries[-1].term if self.entries else self.base[1]) > self.hard_state.term:
            raise ValueError("the last entry is of a later term than the hard state")
        return self.hard_state


def walk_log(fs: FileSystem, directory: str, *, cluster_id: int, store_id: int) -> Walk:
    """Read the whole log. Raises ``DamagedLog``; ``OSError`` where the disk refuses to be read."""
    first, paths = _segment_paths(fs, directory)
    replay = Replay()
    before: Tail | None = None
    sealed_chain: int | None = 0
    torn: TornTail | None = None
    tail: Tail | None = None
    segments: list[tuple[str, int]] = []
    replaced = 0
    for sequence, path in enumerate(paths, first):
        raw = fs.read(path)
        header, chain = _check_header(path, raw, cluster_id, store_id, sequence)
        last = path == paths[-1]
        if tail is None and sequence > 1:
            # The segments before it were purged: what they held is in a snapshot.
            replay.base = (header.first_index - 1, header.previous_term)
            sealed_chain = header.previous_chain
        if header.first_index != replay.next_index():
            raise DamagedLog(
                path, 0, f"a segment that begins at index {header.first_index}, not {replay.next_index()}"
            )
        if sealed_chain is None:
            assert tail is not None
            before = _interrupted_roll(tail, path, raw, last)
            sealed_chain = encode_seal(number=tail.number, offset=tail.offset, chain=tail.chain)[1]
        elif last and tail is not None and is_zero_from(raw, SECTOR_BYTES):
            before = tail
        if header.previous_chain != sealed_chain:
            raise DamagedLog(path, 0, "a segment that does not follow from the one before it")
        segments.append((path, header.first_index))
        tail, sealed_chain, torn = _read_segment(path, raw, header, chain, replay, last)
        if replay.replaced:
            replaced, replay.replaced = len(segments) - 1, False
    assert tail is not None
    if sealed_chain is not None:
        raise DamagedLog(
            tail.file, tail.offset, "the log's end is sealed: the segment that follows is missing"
        )
    try:
        hard_state = replay.finish()
    except ValueError as error:
        raise DamagedLog(tail.file, tail.offset, str(error)) from error
    recovered = Recovered(hard_state, replay.entries, torn, *replay.base)
    return Walk(recovered, tail, before, segments, replaced)


def _segment_paths(fs: FileSystem, directory: str) -> tuple[int, list[str]]:
    """The number of the first segment that is there, and all of them in order."""
    names = sorted(name for name in fs.listdir(directory) if parse_segment_name(name))
    if not names:
        raise DamagedLog(directory, 0, "no segment in the log directory of an initialised store")
    numbers = [parsed[0] for name in names if (parsed := parse_segment_name(name)) is not None]
    for sequence, (name, number) in enumerate(zip(names, numbers, strict=True), numbers[0]):
        if number != sequence:
            raise DamagedLog(
                f"{directory}/{name}",
                0,
                f"a segment is missing or there twice: number {sequence} belongs here",
            )
    return numbers[0], [f"{directory}/{name}" for name in names]


def _check_header(
    path: str, raw: bytes, cluster_id: int, store_id: int, sequence: int
) -> tuple[SegmentHeader, int]:
    try:
        header, chain = decode_header(raw)
    except ValueError as error:
        raise DamagedLog(path, 0, str(error)) from error
    if (header.cluster_id, header.store_id) != (cluster_id, store_id):
        raise DamagedLog(
            path,
            0,
            f"a segment of cluster {header.cluster_id:016x} and store {header.store_id:016x} in the log of cluster "
            f"{cluster_id:016x} and store {store_id:016x}",
        )
    named = parse_segment_name(path.rpartition("/")[2])
    if named != (header.sequence, header.first_index) or header.sequence != sequence:
        raise DamagedLog(path, 0, f"segment {header.sequence} under another segment's name")
    if header.size_bytes != len(raw):
        raise DamagedLog(
            path,
            min(len(raw), header.size_bytes),
            f"a file of {len(raw)} bytes, made with {header.size_bytes}",
        )
    return header, chain


def _interrupted_roll(unsealed: Tail, path: str, raw: bytes, last: bool) -> Tail:
    """The segment before has no seal: explained only when this one is the last and has no record."""
    if not last or not is_zero_from(raw, SECTOR_BYTES):
        raise DamagedLog(
            unsealed.file, unsealed.offset, f"the segment ends without its seal, but {path} follows it"
        )
    return unsealed


def _read_segment(
    path: str, raw: bytes, header: SegmentHeader, chain: int, replay: Replay, last: bool
) -> tuple[Tail, int | None, TornTail | None]:
    """Replay one segment: where it ends, the chain of its seal (None without one), and what is torn."""
    offset, number, start = SECTOR_BYTES, 1, 0
    while True:
        tail = Tail(path, header, offset, number, chain, b"")
        found = scan_record(raw, offset, number=number, chain=chain)
        if isinstance(found, Record) and found.kind is RecordKind.ITEMS:
            try:
                replay.apply(found)
            except ValueError as error:
                raise DamagedLog(path, offset, str(error)) from error
            start, offset, number, chain = offset, found.end, number + 1, found.chain
            continue
        tail = Tail(path, header, offset, number, chain, raw[start:offset])
        if isinstance(found, Record):
            if not is_zero_from(raw, found.end):
                raise DamagedLog(path, found.end, "data behind the seal of a segment")
            return tail, found.chain, None
        if isinstance(found, EndOfLog):
            return tail, None, None
        if isinstance(found, Torn) and last:
            return tail, None, TornTail(path, offset, found.end)
        where = found.offset if isinstance(found, Damage) else offset
        what = (
            found.found
            if isinstance(found, Damage)
            else "an unfinished record in a segment that is not the last"
        )
        raise DamagedLog(path, where, what)
