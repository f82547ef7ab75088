"""The parts of the executor without processes or time of their own: reconciliation, lease, frames, records, logs."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.errors import ConfigError, LogsGone
from raftd.executor import process_tree, records
from raftd.executor.config import ExecutorConfig
from raftd.executor.frames import Decoder, EndReport, RunRequest, encode, end_report, run_request
from raftd.executor.leases import Lease
from raftd.executor.logs import LogStore
from raftd.executor.reconcile import Plan, reconcile
from raftd.executor.status import describe_status
from raftd.scheduler.attach import Assignment
from raftd.scheduler.model import StopReason
from tests.executor.fakes import FakeClock, assignment, token


def never(_: Assignment) -> bool:
    return False


def always(_: Assignment) -> bool:
    return True


CANCEL = StopReason.CANCELLED
TABLE = [
    # in the record, running here, ended here and unrecorded, stale -> kill, stop, start
    ("nothing anywhere", (), (), (), never, Plan((), (), ())),
    ("runs as it should", (assignment(1),), (1,), (), always, Plan((), (), ())),
    ("is missing", (assignment(1),), (), (), never, Plan((), (), (assignment(1),))),
    ("was here, and is gone", (assignment(1),), (), (), always, Plan((), (), ())),
    ("has ended, and the record does not know", (assignment(1),), (), (1,), never, Plan((), (), ())),
    ("was given up", (), (1,), (), always, Plan((token(1),), (), ())),
    ("shall end", (assignment(1, stop=CANCEL),), (1,), (), always, Plan((), ((token(1), CANCEL),), ())),
    ("shall end, and has", (assignment(1, stop=CANCEL),), (), (1,), never, Plan((), (), ())),
    ("shall end before it starts", (assignment(1, stop=CANCEL),), (), (), never,
     Plan((), (), (assignment(1, stop=CANCEL),))),
    ("two for one slot", (assignment(3), assignment(2)), (1,), (), never,
     Plan((token(1),), (), (assignment(2), assignment(3)))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("desired", "running", "unrecorded", "stale", "plan"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_reconciliation(desired, running, unrecorded, stale, plan) -> None:  # type: ignore[no-untyped-def]  # a table
    assert reconcile(desired, {token(n) for n in running}, {token(n) for n in unrecorded}, stale) == plan


def test_a_lease_counts_from_sending_and_never_shrinks() -> None:
    clock = FakeClock()
    lease = Lease(clock, 1_000)
    assert not lease.valid
    assert not lease.lapsed
    first = lease.heartbeat()
    clock.now_ms += 100
    second = lease.heartbeat()
    clock.now_ms += 100
    assert lease.renewed(second)
    assert lease.deadline_ms == clock.now_ms + 900
    assert not lease.renewed(first)
    assert not lease.renewed(second)
    clock.now_ms += 900
    assert lease.lapsed


def test_nothing_renews_a_lapsed_lease_until_it_is_dropped() -> None:
    clock = FakeClock()
    lease = Lease(clock, 1_000)
    assert lease.renewed(lease.heartbeat())
    late = lease.heartbeat()
    clock.now_ms += 1_000
    assert not lease.renewed(late)
    lease.drop()
    assert not lease.renewed(late)
    assert not lease.lapsed
    assert lease.renewed(lease.heartbeat())
    assert lease.valid


def test_a_renewal_that_took_longer_than_the_lease_grants_nothing() -> None:
    clock = FakeClock()
    lease = Lease(clock, 1_000)
    sequence = lease.heartbeat()
    clock.now_ms += 1_000
    assert not lease.renewed(sequence)
    assert not lease.held


@given(
    st.lists(st.tuples(st.text(), st.binary(max_size=300)), max_size=8),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_survive_any_cutting(frames: list[tuple[str, bytes]], cuts: list[int]) -> None:
    data = b"".join(encode({"t": text}, body) for text, body in frames)
    decoder, seen, at, turn = Decoder(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        seen += list(decoder.feed(data[at : at + size]))
        at, turn = at + size, turn + 1
    assert seen == [({"t": text}, body) for text, body in frames]


def test_requests_and_reports_keep_their_fields() -> None:
    request = RunRequest(3, 2, "1.9", "noop", ("a",), {"K": "v"}, None, 5, 6, 7)
    report = EndReport("1.9", "failed", "why", "file", "blob", "/some/where", 1, 2, True)
    ((head, _),) = Decoder().feed(encode(request.head()))
    assert run_request(head) == request
    ((head, _),) = Decoder().feed(encode(report.head()))
    assert end_report(head) == report


def test_records_keep_their_fields() -> None:
    record = records.Record(records.Op.EXITED, 3, 1 << 31, 4_000_000, -1, records.Cause.LAPSED)
    data = record.encode()
    assert len(data) == records.RECORD_BYTES
    again = records.decode(data)
    assert [getattr(again, name) for name in record.__slots__] == [
        getattr(record, n) for n in record.__slots__
    ]


def test_descendants_are_all_below_and_nobody_else() -> None:
    table = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert process_tree.descendants((10,), table) == {11, 12}
    assert process_tree.children(1, table) == {10, 20}


def test_ps_sees_what_proc_sees() -> None:
    assert (
        process_tree._table_from_ps()[os.getpid()]
        == os.getppid()
        == process_tree.process_table()[os.getpid()]
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, ""),
        (3 << 8, "exit status 3"),
        (15, "killed by signal 15 (SIGTERM)"),
        (11 | 128, "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_wait_statuses_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"nice": 20}, {"stop_grace_ms": -1}])
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ExecutorConfig(tmp_path, cluster_id=1, store_id=2, name="n1", **wrong)  # type: ignore[arg-type]  # as meant


def test_the_secrets_of_raftd_are_not_in_the_tasks_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTD_TOKEN", "secret")
    monkeypatch.setenv("RAFTCTL_CLUSTER", "mine")
    monkeypatch.setenv("COLOUR", "green")
    env = ExecutorConfig(tmp_path, cluster_id=1, store_id=2, name="n1").base_env()
    assert env["COLOUR"] == "green"
    assert not {"RAFTD_TOKEN", "RAFTCTL_CLUSTER"} & env.keys()


def log_store(directory: Path, limit: int = 10, count: int = 100, size: int = 1_000) -> LogStore:
    store = LogStore(directory, limit, count, size)
    store.load()
    return store


def test_output_is_kept_up_to_the_limit_and_the_end_of_stdout_remembered(tmp_path: Path) -> None:
    store = log_store(tmp_path)
    output = store.begin(1, 1)
    for part in (b"01234", b"56789ab", b"cd"):
        output.write("stdout", part)
    output.write("stderr", b"0123456789")
    output.end()
    logs = store.open(1, 1)
    assert (logs.read("stdout", 0), logs.read("stdout", 7, 2), logs.read("stdout", 10)) == (
        b"0123456789",
        b"78",
        b"",
    )
    assert (logs.truncated("stdout"), logs.truncated("stderr")) == (True, False)
    assert output.stdout_tail() == b"0123456789abcd"
    assert logs.ended


def test_the_oldest_output_goes_first_and_what_runs_never(tmp_path: Path) -> None:
    store = log_store(tmp_path, count=2)
    running = store.begin(9, 1)
    running.write("stdout", b"still")
    for task in (1, 2, 3):
        output = store.begin(task, 1)
        output.write("stdout", b"x" * 20)
        output.end()
    with pytest.raises(LogsGone):
        store.open(1, 1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "t9.1.stdout", "t2.1.stdout", "t2.1.stdout.cut", "t3.1.stdout", "t3.1.stdout.cut",
    }  # fmt: skip
    running.end()


def test_output_is_bounded_in_bytes_as_well(tmp_path: Path) -> None:
    store = log_store(tmp_path, size=25)
    for task in (1, 2, 3):
        output = store.begin(task, 1)
        output.write("stdout", b"x" * 10)
        output.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t2.1.stdout", "t3.1.stdout"]


def test_output_is_found_again_by_the_next_life(tmp_path: Path) -> None:
    output = log_store(tmp_path).begin(7, 2)
    output.write("stderr", b"0123456789a")
    output.end()
    (tmp_path / "foreign").touch()
    store = log_store(tmp_path)
    logs = store.open(7, 2)
    assert (logs.read("stderr", 0), logs.truncated("stderr"), logs.ended) == (b"0123456789", True, True)
    with pytest.raises(LogsGone):
        store.open(7, 1)
