"""status --watch and interrupted waits: in a process of their own, for they end by a signal."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from raftctl.errors import ExitCode
from tests.raftctl.fake_server import FakeCluster
from tests.support import wait_until


class Typed:
    """A command that runs; its lines can be waited for."""

    def __init__(self, cluster: FakeCluster, *words: str) -> None:
        addresses = ",".join(node.address for node in cluster.nodes.values())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftctl", "--address", addresses, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAFTCTL_TOKEN": cluster.token, "NO_COLOR": "1"},
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._unread: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line)
                if lines is self.out:
                    self._unread.put(line)

    def line(self, containing: str) -> str:
        """The next line of stdout that has this in it."""
        while containing not in (line := self._unread.get(timeout=20)):
            pass
        return line

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(20)
        for reader in self._readers:
            reader.join()
        return code


@contextmanager
def typed(cluster: FakeCluster, *words: str) -> Iterator[Typed]:
    running = Typed(cluster, *words)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.end()


def submit(cluster: FakeCluster) -> None:
    from raftd.pb import scheduler_pb2 as pb

    with cluster.changed:
        cluster._accept(pb.Submission(kind="noop", request_id=f"r{cluster.index}"))


def test_into_a_pipe_every_change_is_a_line_through_a_change_of_leader(cluster: FakeCluster) -> None:
    with typed(cluster, "status", "--watch") as watching:
        watching.line("leader n1")
        wait_until(cluster.all_watched, 10, "the watch is open")
        submit(cluster)
        assert "t1     submitted" in watching.line("t1 ")
        cluster.lead("n2", term=2)
        cluster.stop("n1")
        assert "n2 leads after n1, term 2" in watching.line(" leads ")
        assert "2 of 3 voters are up" in watching.line(" voters ")
        cluster.end("t1")
        assert "t1     succeeded" in watching.line("succeeded")
        assert watching.interrupt() == ExitCode.INTERRUPTED
        assert not any("Traceback" in line for line in watching.err)


def test_as_json_every_line_is_a_status_with_its_changes(cluster: FakeCluster) -> None:
    with typed(cluster, "status", "--watch", "-o", "json") as watching:
        first: dict[str, Any] = json.loads(watching.line("{"))
        assert (first["leader"], first["changes"]) == ("n1", [])
        wait_until(cluster.all_watched, 10, "the watch is open")
        submit(cluster)
        second = json.loads(watching.line("submitted"))
        assert second["pending"] == 1
        assert [change["task_id"] for change in second["changes"]] == ["t1"]
        watching.interrupt()
        assert all(json.loads(line)["cluster"] for line in watching.out)


@pytest.mark.parametrize("words", [("submit", "noop", "--wait"), ("task", "wait", "t1")])
def test_an_interrupted_wait_leaves_the_task_and_says_how_to_cancel_it(
    cluster: FakeCluster, words: tuple[str, ...]
) -> None:
    if words[0] == "task":
        submit(cluster)
    with typed(cluster, *words) as waiting:
        wait_until(cluster.all_watched, 10, "it waits")
        assert waiting.interrupt() == ExitCode.INTERRUPTED
        assert waiting.out == (["submitted t1\n"] if words[0] == "submit" else [])
        assert waiting.err == ["t1 goes on; to cancel: raftctl task cancel t1\n"]
    assert cluster.nodes["n1"].calls["Cancel"] == 0
