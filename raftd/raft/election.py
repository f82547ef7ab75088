"""Elections: when to stand, whom to ask, whom to vote for (the paper, §5.2 and §5.4.1; thesis §9.6 for pre-votes)."""

from __future__ import annotations

from raftd.raft.leader import become_leader
from raftd.raft.messages import RequestVote, RequestVoteReply
from raftd.raft.quorum import VoteResult
from raftd.raft.state import RaftState
from raftd.raft.transitions import Event, role_after
from raftd.raft.types import MAX_TERM, NO_NODE, Role


def tick(state: RaftState) -> None:
    """Stand for election when no leader was heard for the whole timeout."""
    state.election_elapsed += 1
    if state.election_elapsed >= state.election_timeout:
        campaign(state)


def campaign(state: RaftState) -> None:
    """Stand for election, or first ask whether that would succeed. Nothing happens where the node may not."""
    # The timer is left alone where it may not: were it reset, a dead leader's lease would seem to go on.
    if not _may_campaign(state) or state.is_promised() or _disk_stands_still(state):
        return
    if state.config.pre_vote:
        _become_pre_candidate(state)
    else:
        _become_candidate(state)


def _may_campaign(state: RaftState) -> bool:
    return (
        state.role is not Role.LEADER
        and state.configuration.is_voter(state.id)
        and state.term < MAX_TERM
        # A committed configuration that is not applied yet may have taken this node's vote, or given others theirs.
        and not state.log.has_unapplied_configuration()
    )


def _disk_stands_still(state: RaftState) -> bool:
    """Whether a write has been with this node's disk for a whole election timeout: its own vote would wait behind it.

    Who stood all the same would raise its term with every timeout, and could be elected in none of them.
    """
    since = state.durability.oldest_tick()
    return since is not None and state.ticks - since >= state.config.election_ticks


def handle_timeout_now(state: RaftState) -> None:
    """The leader of this term hands over: stand at once, without asking first (thesis §3.10)."""
    if _disk_stands_still(state):
        return  # by the time that the disk has the vote, the leader will have gone on leading
    state.transfer_told = True
    state.trace(Event.TOLD_TO_STAND)
    campaign_if_told(state)


def campaign_if_told(state: RaftState) -> None:
    """Something was applied, perhaps what kept this node from standing when the leader told it to."""
    if state.transfer_told and _may_campaign(state):
        _become_candidate(state, transfer=True)


def _become_pre_candidate(state: RaftState) -> None:
    state.role = role_after(state.role, Event.ASKS_PRE_VOTES)
    # Forget the leader, or this node would refuse others by a lease that it has itself given up, and a cluster of
    # such nodes would stay leaderless.
    state.leader = NO_NODE
    state.tracker.votes.clear()
    state.reset_election_timer()
    state.trace(Event.ASKS_PRE_VOTES)
    _request_votes(state, state.term + 1, pre_vote=True)
    # The own pre-vote promises nothing, so it need not wait for the disk.
    _count(state, state.tracker.record_vote(state.id, granted=True))


def _become_candidate(state: RaftState, *, transfer: bool = False) -> None:
    state.role = role_after(state.role, Event.STANDS)
    state.leader = NO_NODE
    state.term += 1
    state.vote = state.id
    state.transfer_told = False
    state.tracker.votes.clear()
    state.reset_election_timer()
    state.trace(Event.STANDS)
    # The own vote is counted by `own_vote_durable`, when it is.
    _request_votes(state, state.term, pre_vote=False, transfer=transfer)


def _request_votes(state: RaftState, term: int, *, pre_vote: bool, transfer: bool = False) -> None:
    log = state.log
    for node in state.configuration.all_voters():
        if node != state.id:
            # Held: it advertises the end of a log, which must not be lost again by the time it is believed.
            state.send_when_durable(
                RequestVote(
                    sender=state.id,
                    receiver=node,
                    term=term,
                    last_log_index=log.last_index,
                    last_log_term=log.last_term,
                    pre_vote=pre_vote,
                    transfer=transfer,
                    commit=log.commit,
                    commit_term=log.term(log.commit) or 0,
                )
            )


def own_vote_durable(state: RaftState) -> None:
    """A candidate votes for itself like any other voter: when the disk says that it has."""
    durability = state.durability
    if durability.term == state.term and durability.vote == state.id:
        if state.election_elapsed >= state.election_timeout:
            # The others are asked only now: they must have the time to answer.
            state.reset_election_timer()
        _count(state, state.tracker.record_vote(state.id, granted=True))


def handle_request_vote(state: RaftState, message: RequestVote) -> None:
    """Answer a candidate of the current term, or a pre-candidate of the current or a later one."""
    may_vote = (
        state.vote == message.sender
        or (state.vote == NO_NODE and state.leader == NO_NODE)
        or (message.pre_vote and message.term > state.term)
    )
    granted = may_vote and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    shared = 0 if granted else min(message.last_log_index, state.log.commit)
    shared_term = state.log.term(shared)
    if granted and not message.pre_vote and state.vote != message.sender:
        state.vote = message.sender
        # Also ends an own pre-candidacy: who has helped another to be elected must not go on to disturb it.
        state.become_follower(state.term, NO_NODE, Event.GAVE_VOTE)
        state.reset_election_timer()
    state.send_when_durable(
        RequestVoteReply(
            sender=state.id,
            receiver=message.sender,
            # A granted pre-vote names the term it was asked for: the asker's own is behind it and would look stale.
            term=message.term if granted else state.term,
            granted=granted,
            pre_vote=message.pre_vote,
            commit=shared if shared_term else 0,
            commit_term=shared_term or 0,
        )
    )


def learn_commit(state: RaftState, message: RequestVote | RequestVoteReply) -> None:
    """Whoever knows that an entry is committed may say so, and who has the same entry may believe it.

    Without this, some would wait for ever for a leader to tell them that a change is committed: its voters do not win,
    by the configuration before it, and whoever knows of it is no voter any more and does not stand.
    """
    log = state.log
    learned = log.matches(message.commit, message.commit_term) and log.commit_to(message.commit)
    campaigns = state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)
    if learned and campaigns and log.has_unapplied_configuration():
        state.become_follower(state.term, NO_NODE, Event.LEARNED_CHANGE)


def handle_vote_reply(state: RaftState, message: RequestVoteReply) -> None:
    """Count an answer to the running campaign; late answers to another kind of campaign count for nothing."""
    expected = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
    if state.role is expected:
        _count(state, state.tracker.record_vote(message.sender, message.granted))


def _count(state: RaftState, result: VoteResult) -> None:
    if result is VoteResult.WON:
        if state.role is Role.PRE_CANDIDATE:
            _become_candidate(state)
        elif state.id in state.tracker.votes:
            # Not before: enough others do not make up for an own vote that a crash could take back.
            become_leader(state)
    elif result is VoteResult.LOST:
        state.become_follower(state.term, NO_NODE, Event.LOST)
