"""The code, broken on purpose, one rule at a time: what the simulator must catch to be believed.

What may live here: each mutant as a patch of a function, with the invariants that may catch it. A patch is undone by
whoever applied it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from raftd.node.ports import Received
from raftd.node.sessions import Sessions
from raftd.node.writes import Writes
from raftd.raft import leader
from raftd.raft.log import Log
from raftd.raft.raw_node import RawNode
from raftd.raft.ready import Ready
from raftd.raft.state import RaftState
from raftd.raft.tracker import Tracker
from raftd.raft.types import Entry
from raftd.scheduler import machine
from raftd.scheduler.attempts import vacate
from raftd.scheduler.commands import Vacate
from raftd.scheduler.lease import LeaseBook
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State
from raftd.scheduler.turn import Turn
from raftd.storage.filesystem import File
from raftd.storage.recovery import Replay
from raftd.storage.thread import StorageThread
from raftd.storage.wal import Wal


class Patch(Protocol):
    """What applies a patch and will undo it (``pytest.MonkeyPatch``)."""

    def setattr(self, target: Any, name: str, value: Any) -> None:
        """Replace an attribute."""

    def setitem(self, dic: Any, name: Any, value: Any) -> None:
        """Replace an item."""


@dataclass(frozen=True)
class Mutant:
    """One broken rule.

    Attributes:
        seeds: so many are enough to catch it.
        leaning: of the plans in which it is looked for; None for plans as they are drawn.
    """

    name: str
    apply: Callable[[Patch], None]
    caught_by: tuple[str, ...]
    seeds: int
    leaning: str | None = None


class _Unsynced:
    def __init__(self, file: File) -> None:
        self.file = file

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self.file.pwrite(data, offset)

    def sync(self) -> None:
        """The fsync that is left out."""

    def close(self) -> None:
        self.file.close()


def _skip_fsync(patch: Patch) -> None:
    write = Wal._write

    def unsynced(self: Wal, *record: Any) -> None:
        self._file = _Unsynced(self._file)
        write(self, *record)
        if isinstance(self._file, _Unsynced):
            self._file = self._file.file

    patch.setattr(Wal, "_write", unsynced)


def _forget_vote(patch: Patch) -> None:
    begin = RawNode.__init__

    def forgetful(
        self: RawNode, config: Any, configuration: Any, hard_state: Any, *more: Any, **named: Any
    ) -> None:
        begin(self, config, configuration, replace(hard_state, vote=0), *more, **named)

    patch.setattr(RawNode, "__init__", forgetful)


def _any_term_commits(patch: Patch) -> None:
    def maybe_commit(state: RaftState) -> None:
        index = state.tracker.committed_index()
        if index > state.log.commit:
            state.log.commit_to(index)
            state.quota.release_to(index)
            state.flush_wanted = True

    patch.setattr(leader, "maybe_commit", maybe_commit)


def _vote_for_anybody(patch: Patch) -> None:
    patch.setattr(Log, "is_up_to_date", lambda *_: True)


def _cut_on_overlap(patch: Patch) -> None:
    def first_conflict(self: Log, entries: tuple[Entry, ...]) -> int:
        fresh = next((at for at, entry in enumerate(entries) if entry.index > self.commit), len(entries))
        return min(fresh, len(entries))

    patch.setattr(Log, "first_conflict", first_conflict)


def _keep_conflicting_tail(patch: Patch) -> None:
    matches = Log.matches
    patch.setattr(
        Log, "matches", lambda self, index, term: index <= self.last_index or matches(self, index, term)
    )


def _say_at_once(patch: Patch) -> None:
    hand_over = Writes.hand_over

    def hasty(self: Writes, ready: Ready, received: Received | None = None) -> None:
        self._send(ready.messages_after_persist)
        hand_over(self, replace(ready, messages_after_persist=()), received)

    patch.setattr(Writes, "hand_over", hasty)


def _report_before_write(patch: Patch) -> None:
    submit = StorageThread.submit

    def hasty(self: StorageThread, number: int, *more: Any) -> None:
        submit(self, number, *more)
        self._on_done(number)

    patch.setattr(StorageThread, "submit", hasty)


def _forget_requests(patch: Patch) -> None:
    patch.setattr(State, "request", lambda *_: None)


def _accept_old_token(patch: Patch) -> None:
    def generous(turn: Turn, command: Vacate) -> Reply:
        task = turn.state.tasks.get(command.task_id)
        current = None if task is None else task.current
        if current is not None:
            command = replace(command, attempt=current.number, token=current.token)
        return vacate(turn, command)

    patch.setitem(machine._RULES, Vacate, generous)


def _read_without_quorum(patch: Patch) -> None:
    patch.setattr(Tracker, "confirmed_round", lambda self: max(p.acked_round for p in self.progress.values()))


def _renew_without_quorum(patch: Patch) -> None:
    renew = Sessions._renew

    async def hasty(self: Sessions, session: Any, heartbeat: Any, received_ms: int) -> None:
        class _Confirmed:
            async def read_index(self, *, timeout: float) -> int:
                return 0

        consensus, self._consensus = self._consensus, _Confirmed()  # type: ignore[assignment]  # for this one call
        try:
            await renew(self, session, heartbeat, received_ms)
        finally:
            self._consensus = consensus

    patch.setattr(Sessions, "_renew", hasty)


def _lose_early(patch: Patch) -> None:
    expired = LeaseBook.expired
    patch.setattr(
        LeaseBook, "expired", lambda self, now_ms: expired(self, now_ms + self.policy.leader_lease_ms // 2)
    )


def _replay_keeps_tail(patch: Patch) -> None:
    def put_aside(self: Replay, entry: Entry) -> None:
        position = entry.index - self.base[0] - 1
        # The caller appends the new entry where the old one was; what followed the old one stays behind it.
        self.entries[position:] = self.entries[position + 1 :]

    patch.setattr(Replay, "_truncate", put_aside)


def _apply_before_commit(patch: Patch) -> None:
    def take_committed(self: Log, max_bytes: int) -> tuple[Entry, ...]:
        entries, _ = self.slice(self.handed_out + 1, self.durable_index + 1, max_bytes)
        self.handed_out += len(entries)
        return entries

    patch.setattr(Log, "take_committed", take_committed)


MUTANTS = (
    Mutant("skip an fsync", _skip_fsync, ("DurableBeforeSay",), 2),
    Mutant("say it before it is durable", _say_at_once, ("DurableBeforeSay",), 2),
    Mutant(
        "report a write before it is written", _report_before_write, ("DurableBeforeSay", "QuorumsMeet"), 2
    ),
    Mutant("forget request ids", _forget_requests, ("ReplyStable", "StateInvariants"), 3),
    Mutant(
        "apply before the commit", _apply_before_commit, ("CoreInvariants", "SameApply", "QuorumsMeet"), 3
    ),
    Mutant("vote for anybody's log", _vote_for_anybody, ("LeaderComplete",), 10, "short reigns"),
    Mutant(
        "keep a conflicting tail", _keep_conflicting_tail, ("LogMatching", "SameApply"), 10, "short reigns"
    ),
    Mutant("confirm reads alone", _read_without_quorum, ("ReadFresh",), 10, "lonely leaders"),
    Mutant(
        "cut on any overlap",
        _cut_on_overlap,
        ("QuorumsMeet", "LeaderComplete", "DurableBeforeSay", "HealsInTime", "TimePasses"),
        60,
        "",
    ),
    Mutant(
        "replay a truncation without its cut", _replay_keeps_tail, ("DurableBeforeSay",), 30, "short reigns"
    ),
    Mutant(
        "forget the vote in a restart",
        _forget_vote,
        ("VoteOnce", "OneLeaderPerTerm", "DamageIsDamage"),
        30,
        "short reigns",
    ),
    Mutant("accept an old token", _accept_old_token, ("OnlyCurrentTokenAccepted",), 30, "lonely leaders"),
    Mutant("lose nodes before their lease", _lose_early, ("AtMostOneRuns",), 30, "lonely leaders"),
    Mutant("renew leases alone", _renew_without_quorum, ("AtMostOneRuns",), 60, "lonely leaders"),
    Mutant(
        "commit entries of any term",
        _any_term_commits,
        ("LeaderComplete", "LogMatching", "QuorumsMeet"),
        150,
        "short reigns",
    ),
)
"""All of these are caught, within their number of seeds."""
