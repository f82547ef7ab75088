"""What must hold in one core after every step: cheap checks for tests and the simulator, never needed for safety."""

from __future__ import annotations

from raftd.raft.progress import ProgressState
from raftd.raft.raw_node import RawNode
from raftd.raft.state import RaftState
from raftd.raft.types import NO_NODE, InvariantViolation, Role

__all__ = ["InvariantViolation", "check"]


def check(node: RawNode) -> None:
    """Raise InvariantViolation, naming every broken invariant of this node. Costs O(members)."""
    state = node.state
    broken = [*_broken_in_log(state), *_broken_in_role(state), *_broken_in_progress(state)]
    if broken:
        raise InvariantViolation(f"node {state.id}: " + "; ".join(broken))


def _broken_in_log(state: RaftState) -> list[str]:
    log, unstable = state.log, state.log.unstable
    claims = {
        "applied <= handed_out": log.applied <= log.handed_out,
        "handed_out <= commit": log.handed_out <= log.commit,
        "handed_out <= durable_index": log.handed_out <= log.durable_index,
        "first_index - 1 <= commit": log.first_index - 1 <= log.commit,
        "durable_index <= last_index": log.durable_index <= log.last_index,
        "commit <= last_index": log.commit <= log.last_index,
        "offset <= taken": unstable.offset <= unstable.taken,
        "taken <= last_index + 1": unstable.taken <= log.last_index + 1,
        "the unstable tail starts at its offset": not unstable.entries
        or unstable.entries[0].index == unstable.offset,
        "the last entry sits at last_index": not unstable.entries
        or unstable.entries[-1].index == log.last_index,
        "no entry is of a later term": log.last_term <= state.term,
    }
    return [claim for claim, holds in claims.items() if not holds]


def _broken_in_role(state: RaftState) -> list[str]:
    durability = state.durability
    leads = state.role is Role.LEADER
    claims = {
        "the disk's term is not ahead": durability.term <= state.term,
        "a durable vote is not taken back": durability.term < state.term
        or durability.vote in (NO_NODE, state.vote),
        "leads exactly if it is its own leader": leads == (state.leader == state.id),
        "a leader's vote for itself is durable": not leads
        or (durability.term, durability.vote) == (state.term, state.id),
        "a candidate voted for itself": state.role is not Role.CANDIDATE or state.vote == state.id,
        "a campaigning node has no leader": state.role not in (Role.CANDIDATE, Role.PRE_CANDIDATE)
        or state.leader == NO_NODE,
        "only a voter campaigns or leads": state.role is Role.FOLLOWER
        or state.configuration.is_voter(state.id),
        "only a leader has reads pending": leads or not state.reads,
        "only a leader tracks progress": leads or not state.tracker.progress,
        "only a leader hands over, and to a voter": state.transfer_target == NO_NODE
        or (leads and state.transfer_target in state.configuration.voters),
        "nothing carries a term that is not durable": all(m.term <= durability.term for m in state.messages),
    }
    return [claim for claim, holds in claims.items() if not holds]


def _broken_in_progress(state: RaftState) -> list[str]:
    broken = []
    last = state.log.last_index
    for node, progress in state.tracker.progress.items():
        inflights = progress.inflights
        claims = {
            "match < next": progress.match_index < progress.next_index,
            "match <= last_index": progress.match_index <= last,
            "next <= last_index + 1": progress.next_index <= last + 1,
            "window within its count": len(inflights) <= inflights.max_count,
            "window open at least a little": 1 <= inflights.count_limit <= inflights.max_count,
            "no window while probing": progress.state is ProgressState.REPLICATE or not inflights,
            "a snapshot is on its way exactly in SNAPSHOT": (progress.state is ProgressState.SNAPSHOT)
            == (progress.pending_snapshot > 0),
            "acked_round <= round": progress.acked_round <= state.round,
        }
        broken += [f"of {node}: {claim}" for claim, holds in claims.items() if not holds]
    own = state.tracker.progress.get(state.id)
    if own is not None and own.match_index > state.log.durable_index:
        broken.append("own match <= durable_index")
    return broken
