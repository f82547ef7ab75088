"""The kinds without a cluster: `python -m pytest`, with this package and raftd installed."""

import json
from pathlib import Path

import pytest
import raftd_primes

from raftd.errors import InvalidArguments
from raftd.tasks.context import TaskCancelled, TaskFailed
from raftd.tasks.testing import LocalSlot


def test_primes_are_counted_and_progress_is_told(tmp_path: Path) -> None:
    slot = LocalSlot(tmp_path)
    result = slot.run(raftd_primes.count_primes, "0", "3000")
    assert json.loads(result) == {"from": 0, "to": 3000, "primes": 430}
    assert slot.progressed[-1] == (1.0, "at 3000")


@pytest.mark.parametrize("args", [(), ("1",), ("2", "1"), ("0", "-1"), ("0", "x"), ("0", "9999999999")])
def test_wrong_arguments_are_refused_at_submit(args: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArguments):
        raftd_primes.count_primes.check(args)


def test_a_list_is_a_blob(tmp_path: Path) -> None:
    slot = LocalSlot(tmp_path)
    result = json.loads(slot.run(raftd_primes.list_primes, "10", "20"))
    assert slot.blob(result["blob"]) == b"11\n13\n17\n19\n"
    with pytest.raises(TaskFailed, match="no prime") as failed:
        slot.run(raftd_primes.list_primes, "24", "28")
    assert json.loads(failed.value.result) == {"from": 24, "to": 28}


def test_a_list_that_is_stopped_says_how_far_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slot = LocalSlot(tmp_path, stop_at=0.5)
    with pytest.raises(TaskCancelled):
        slot.run(raftd_primes.list_primes, "0", "4000")
    assert capsys.readouterr().err == "stopped after 303 primes\n"


def test_only_the_latest_attempt_publishes(tmp_path: Path) -> None:
    slot, path = LocalSlot(tmp_path / "slot"), tmp_path / "answer"
    slot.run(raftd_primes.publish, str(path), payload=b"first", fencing_token="1.9")
    slot.run(raftd_primes.publish, str(path), payload=b"second", fencing_token="1.10")
    with pytest.raises(TaskFailed, match="older"):
        slot.run(raftd_primes.publish, str(path), payload=b"late", fencing_token="1.9")
    assert path.read_bytes() == b"second"
