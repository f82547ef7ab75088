"""Snapshots in bytes: equal states come back, in slices of bounded size; damage and later versions are told."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.codec.snapshot import FORMAT_VERSION, decode_snapshot, encode_snapshot
from raftd.errors import StorageError, UnknownFormat
from raftd.pb import log_pb2 as pb
from raftd.scheduler import invariants
from raftd.scheduler.attempts import MAX_REASON_CHARS
from raftd.scheduler.model import (
    ArraySpec,
    Attempt,
    AttemptOutcome,
    BlobRef,
    FencingToken,
    MemberRecord,
    Settings,
    Standing,
    TaskSpec,
)
from raftd.scheduler.state import State
from tests.scheduler.world import GENESIS, World, submission

CRASHED = Attempt(
    1, "n1", 0, 1, FencingToken(1, 1), 1, outcome=AttemptOutcome.CRASHED, reason="x" * MAX_REASON_CHARS
)


def busy_world() -> World:
    world = World(["n1", "n2", "n3"], slots=2, settings=Settings(max_queue=12_345, crash_limit=4))
    job = world.submit_array(6, max_failures=3, retries=1)
    world.run(job.task_ids[0])
    world.run(job.task_ids[1], AttemptOutcome.FAILED)
    blob_task = world.submit("render-tile", priority=4)
    world.occupy(blob_task, "n2")
    world.end(blob_task, result=BlobRef("ab" * 32, 9), holders=("n1", "n2"))
    inline_task = world.submit(priority=-4)
    world.occupy(inline_task, "n2")
    world.end(inline_task, result=b"")
    world.occupy(job.task_ids[2], "n1", 1)
    world.cancel(job.task_ids[2])
    world.submit(run_timeout_ms=5)
    world.lose("n3")
    return world


def test_a_state_comes_back_as_it_was() -> None:
    world = busy_world()
    state = decode_snapshot(encode_snapshot(world.state.freeze()))
    invariants.check(state)
    assert invariants.state_hash(state) == invariants.state_hash(world.state)
    assert state.freeze() == world.state.freeze()
    assert state.genesis == GENESIS
    assert state.settings.max_queue == 12_345
    assert state.requests.get("request-1") == world.state.requests.get("request-1")


def test_an_empty_state_comes_back() -> None:
    assert decode_snapshot(encode_snapshot(State().freeze())).freeze() == State().freeze()


MEMBERS = st.builds(
    MemberRecord,
    st.text(max_size=70),
    st.integers(1, (1 << 64) - 1),
    st.text(max_size=70),
    st.sampled_from(Standing),
    st.booleans(),
    st.integers(0, (1 << 64) - 1),
)


@given(st.lists(MEMBERS, max_size=9), st.frozensets(st.integers(1, (1 << 64) - 1), max_size=9))
def test_members_and_removed_stores_come_back_in_order_and_equal_ones_have_equal_bytes(
    members: list[MemberRecord], removed: frozenset[int]
) -> None:
    state = State()
    state.members, state.removed_stores = tuple(members), removed
    written = list(encode_snapshot(state.freeze()))
    again = decode_snapshot(written)
    assert (again.members, again.removed_stores) == (tuple(members), removed)
    assert invariants.state_hash(again) == invariants.state_hash(state)
    assert list(encode_snapshot(again.freeze())) == written


def test_a_standing_of_a_later_version_stops_this_build() -> None:
    head = pb.SnapshotSlice.FromString(next(encode_snapshot(busy_world().state.freeze()))[4:])
    head.head.members[0].standing = 9
    data = head.SerializeToString()
    with pytest.raises(UnknownFormat, match="Standing 9"):
        decode_snapshot([len(data).to_bytes(4, "big") + data, encoded_end()])


@given(st.integers(1, 400))
def test_the_parts_may_be_cut_anywhere(size: int) -> None:
    world = busy_world()
    whole = b"".join(encode_snapshot(world.state.freeze()))
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert invariants.state_hash(decode_snapshot(parts)) == invariants.state_hash(world.state)


def test_what_tasks_share_is_written_once_and_shared_again() -> None:
    world = World(["n1"])
    spec = TaskSpec("noop", payload=b"p" * 100_000)
    job = world.accept(submission("job", spec, ArraySpec(0, 999)))
    slices = list(encode_snapshot(world.state.freeze()))
    assert sum(map(len, slices)) < 250_000
    state = decode_snapshot(slices)
    assert len({id(state.tasks[task_id].spec) for task_id in job.task_ids}) == 1


def test_slices_are_small_enough_to_do_other_work_in_between() -> None:
    world = World(["n1"])
    for part in range(3):
        world.accept(submission(f"job-{part}", TaskSpec("noop"), ArraySpec(0, 999)))
    for number in range(20):
        world.accept(submission(f"big-{number}", TaskSpec("noop", payload=bytes(200_000))))
    # Many attempts with long reasons, and large results within the records.
    for task in list(world.state.tasks.values())[:1_000]:
        world.state.tasks.put(task.id, replace(task, attempts=(CRASHED,) * 20, result=bytes(4_096)))
    tasks = 0
    for piece in encode_snapshot(world.state.freeze()):
        message = pb.SnapshotSlice.FromString(piece[4:])
        assert len(message.tasks) <= 256
        assert len(piece) < 600_000
        tasks += len(message.tasks)
    assert tasks == 3_020


def encoded_end() -> bytes:
    return list(encode_snapshot(State().freeze()))[-1]


def whole_snapshot() -> bytes:
    return b"".join(encode_snapshot(busy_world().state.freeze()))


@pytest.mark.parametrize("missing", [1, 3, 20, 100])
def test_a_snapshot_that_is_cut_short_is_damaged(missing: int) -> None:
    with pytest.raises(StorageError):
        decode_snapshot([whole_snapshot()[:-missing]])


def test_a_snapshot_that_misses_a_slice_or_goes_on_after_its_end_is_damaged() -> None:
    slices = list(encode_snapshot(busy_world().state.freeze()))
    for kept in (slices[1:], slices[:-1], [slices[0], *slices[2:]], slices * 2, []):
        with pytest.raises(StorageError):
            decode_snapshot(kept)


def test_bytes_that_are_no_snapshot_are_damaged() -> None:
    for data in (b"\x00\x00\x00\x02\xff\xff", b"\xff\xff\xff\xff\x00", b"\x00"):
        with pytest.raises(StorageError):
            decode_snapshot([data])


def test_a_later_format_stops_this_build() -> None:
    head = pb.SnapshotSlice(head=pb.SnapshotHead(format_version=FORMAT_VERSION + 1)).SerializeToString()
    with pytest.raises(UnknownFormat):
        decode_snapshot([len(head).to_bytes(4, "big") + head])
