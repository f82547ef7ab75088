"""Every message of consensus comes out of the wire as it went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.codec.peer import (
    decode_batch,
    decode_entry,
    decode_snapshot,
    encode_batch,
    encode_entry,
    message_bytes,
)
from raftd.errors import UnknownFormat
from raftd.pb import consensus_pb2 as pb
from raftd.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftd.raft.types import MAX_TERM, Configuration, Entry, EntryType, Snapshot

NUMBER = st.integers(0, MAX_TERM)
BOOL = st.booleans()
STORE = st.integers(1, 2**64 - 1)
ENTRIES = st.builds(Entry, NUMBER, NUMBER, st.sampled_from(EntryType), st.binary(max_size=30))
ENDS = (st.just(7), st.just(9))
CONFIGURATIONS = st.builds(
    lambda voters, learners, outgoing: Configuration(
        tuple(voters), tuple(learners - voters), tuple(outgoing)
    ),
    st.sets(STORE, max_size=5),
    st.sets(STORE, max_size=3),
    st.sets(STORE, max_size=5),
)
SNAPSHOTS = st.builds(Snapshot, NUMBER, NUMBER, CONFIGURATIONS, NUMBER)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(RequestVote, *ENDS, NUMBER, NUMBER, NUMBER, BOOL, BOOL, NUMBER, NUMBER),
    st.builds(RequestVoteReply, *ENDS, NUMBER, BOOL, BOOL, NUMBER, NUMBER),
    st.builds(
        AppendEntries,
        *ENDS,
        NUMBER,
        NUMBER,
        NUMBER,
        st.lists(ENTRIES, max_size=3).map(tuple),
        NUMBER,
        NUMBER,
        BOOL,
    ),
    st.builds(InstallSnapshot, *ENDS, NUMBER, SNAPSHOTS),
    st.builds(InstallSnapshotReply, *ENDS, NUMBER, BOOL, NUMBER),
    st.builds(TimeoutNow, *ENDS, NUMBER),
    st.builds(AppendEntriesReply, *ENDS, NUMBER, BOOL, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, BOOL),
)


@given(st.lists(MESSAGES, max_size=4))
def test_a_batch_comes_out_as_it_went_in(messages: list[Message]) -> None:
    header = pb.PeerHeader(sender_store_id=7, receiver_store_id=9)
    sent = encode_batch(header, messages).SerializeToString()
    assert decode_batch(pb.PeerBatch.FromString(sent)) == tuple(messages)


@given(MESSAGES)
def test_a_message_is_about_as_large_as_it_is_taken_to_be(message: Message) -> None:
    size = encode_batch(pb.PeerHeader(), [message]).ByteSize()
    assert size <= message_bytes(message) + 64


@given(ENTRIES)
def test_an_entry_comes_out_as_it_went_in(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


def test_what_a_newer_version_says_is_named_and_not_guessed() -> None:
    with pytest.raises(UnknownFormat, match="type 9"):
        decode_entry(pb.LogEntry(index=3, type=pb.EntryType.ValueType(9)))
    with pytest.raises(UnknownFormat, match="of a kind"):
        decode_batch(pb.PeerBatch(messages=[pb.PeerMessage(term=1)]))
    with pytest.raises(UnknownFormat, match="both voter and learner"):
        decode_snapshot(pb.InstallSnapshot(voters=[1, 2], learners=[2]))
