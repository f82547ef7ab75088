"""Entries in bytes: the same commands come back, and what this build does not know stops it."""

import pytest

from raftd.codec.commands import decode_batch, encode_batch
from raftd.codec.genesis import decode_genesis, encode_genesis
from raftd.errors import UnknownFormat
from raftd.pb import log_pb2 as pb
from raftd.scheduler.commands import (
    COMMAND_VERSION,
    FORMAT_VERSION,
    Batch,
    Cancel,
    Command,
    Expire,
    ForgetNode,
    GraphEdge,
    GraphTask,
    Header,
    MarkStopping,
    NodeLost,
    Occupy,
    OccupyNew,
    Purge,
    RecordBlob,
    RegisterNode,
    Retry,
    SetEligibility,
    SetLabels,
    SetSettings,
    Submit,
    SubmitGraph,
    Vacate,
)
from raftd.scheduler.model import (
    ArraySpec,
    AttemptOutcome,
    BlobRef,
    Condition,
    Dependency,
    Eligibility,
    FencingToken,
    Genesis,
    Member,
    NodeRole,
    StopReason,
    TaskSpec,
    TaskState,
)

TOKEN = FencingToken(2, 2**64 - 1)
REF = BlobRef("ab" * 32, 12_345)
HEADER = Header(cluster_time_ms=1_800_000_000_000, random_u64=2**64 - 1)
SPEC = TaskSpec(
    kind="render-tile",
    args=("{}", "ünïcode", ""),
    payload=bytes(range(256)),
    env=(("B", "2"), ("A", "")),
    name="tile",
    priority=-7,
    retries=3,
    backoff_first_ms=0,
    backoff_max_ms=5,
    run_timeout_ms=60_000,
    queue_timeout_ms=1,
    delay_ms=2,
    require=(("gpu", "yes"), ("zone", "")),
    slots=3,
)
AFTER = (Dependency(17), Dependency(2**64 - 1, job=True, condition=Condition.ANY))

COMMANDS: list[Command] = [
    RegisterNode(
        "n1", 2**64 - 1, 3, NodeRole.WORKER, 4, (("zone", "a"),), ("noop", "sleep"), "127.0.0.1:7001"
    ),
    Submit("id", b"\x00\xff", 1_800_000_000_000, SPEC, ArraySpec(0, 63, 3)),
    Submit("id", b"", 0, TaskSpec("noop")),
    Submit("id", b"", 0, TaskSpec("noop"), ArraySpec(0, 0)),
    Occupy(17, "n1", 3, 0),
    Vacate(17, 1, TOKEN, AttemptOutcome.SUCCEEDED, result=b"", started_at_ms=1, ended_at_ms=2),
    Vacate(17, 1, TOKEN, AttemptOutcome.SUCCEEDED, result=REF, blob_holders=("n1", "n2")),
    Vacate(17, 1, TOKEN, AttemptOutcome.CRASHED, "signal 9"),
    Cancel(task_id=0),
    Cancel(job_id=3, reason="no more"),
    Cancel(),
    MarkStopping(17, 1, TOKEN, StopReason.TIMED_OUT),
    NodeLost("n1", 3),
    RecordBlob(REF, ("n1",)),
    Submit("id", b"", 0, TaskSpec("noop"), after=AFTER),
    SubmitGraph(
        "id",
        b"\x00\xff",
        1_800_000_000_000,
        "diamond",
        (
            GraphTask(SPEC, (), AFTER),
            GraphTask(TaskSpec("noop"), (GraphEdge(0), GraphEdge(2**32 - 1, Condition.ANY))),
        ),
        max_failures=2,
    ),
    SubmitGraph("", b"", 0, "", ()),
    Occupy(17, "n1", 3, 0, (1, 3), reserve=True),
    OccupyNew(1, 2, "n1", 3, 4, (5,)),
    Retry(17, "id", b"\x00\xff", 1_800_000_000_000),
    Expire(17),
    Purge((1, 2**64 - 1), (3,), 1_800_000_000_000, (TaskState.FAILED, TaskState.CANCELLED)),
    Purge(),
    SetEligibility("n1", Eligibility.DRAINING, 1_800_000_000_000),
    SetLabels("n1", (("zone", "a"),), ("gpu",)),
    SetSettings((("ageing_ms", 0), ("max_queue", 2**64 - 1))),
    ForgetNode("n1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    batch = Batch(HEADER, (command,))
    assert decode_batch(encode_batch(batch)) == batch


def test_a_batch_keeps_its_order_and_equal_batches_are_equal_bytes() -> None:
    batch = Batch(HEADER, tuple(COMMANDS))
    assert decode_batch(encode_batch(batch)) == batch
    assert encode_batch(batch) == encode_batch(decode_batch(encode_batch(batch)))


def test_every_command_has_its_bytes() -> None:
    kinds = {field.name for field in pb.LogCommand.DESCRIPTOR.oneofs_by_name["command"].fields}
    assert len(kinds) == len({type(command) for command in COMMANDS})


@pytest.mark.parametrize(
    "data",
    [
        encode_batch(Batch(Header(1, 1, format_version=FORMAT_VERSION + 1), ())),
        encode_batch(Batch(Header(1, 1, command_version=COMMAND_VERSION + 1), ())),
        pb.LogBatch().SerializeToString(),
        pb.LogBatch(
            header=pb.LogHeader(format_version=1, command_version=COMMAND_VERSION), commands=[pb.LogCommand()]
        ).SerializeToString(),
        # A command of a later build: a field of the oneof with a number that this one does not have.
        pb.LogBatch(
            header=pb.LogHeader(format_version=1, command_version=COMMAND_VERSION)
        ).SerializeToString()
        + b"\x12\x04\xa2\x06\x01x",
        pb.LogBatch(
            header=pb.LogHeader(format_version=1, command_version=COMMAND_VERSION),
            commands=[pb.LogCommand(vacate=pb.VacateCommand(outcome=99))],
        ).SerializeToString(),
        b"\xff\xff\xff",
    ],
)
def test_an_entry_that_this_build_does_not_know_stops_it(data: bytes) -> None:
    with pytest.raises(UnknownFormat) as caught:
        decode_batch(data)
    assert caught.value.try_


GENESIS = Genesis(2**64 - 1, 1, (Member("n1", 1, "127.0.0.1:7001"), Member("w1", 2, "", voter=False)))


def test_the_genesis_comes_back_and_is_the_same_bytes_everywhere() -> None:
    assert decode_genesis(encode_genesis(GENESIS)) == GENESIS
    # The very bytes: a founding node of an older build must have written the same entry 1.
    assert encode_genesis(Genesis(1, 1, (Member("a", 2, "b"),))).hex() == (
        "080111010000000000000018012211" + "0a0161" + "110200000000000000" + "1a0162" + "2001"
    )


@pytest.mark.parametrize("data", [b"", b"\xff", pb.Genesis(format_version=2).SerializeToString()])
def test_a_genesis_that_this_build_does_not_know_stops_it(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        decode_genesis(data)
