"""Runs command lines in this process, against the fake cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from raftctl.app import run
from tests.raftctl.fake_server import FakeCluster


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Its stdout, which must be one JSON document."""
        return json.loads(self.out)


class Shell:
    """Types commands; every one of them is told where the fake cluster is."""

    def __init__(self, cluster: FakeCluster, capture: pytest.CaptureFixture[str]) -> None:
        self._cluster = cluster
        self._capture = capture

    def __call__(self, *words: str) -> Ran:
        addresses = ",".join(node.address for node in self._cluster.nodes.values())
        code = run(["--address", addresses, *words])
        said = self._capture.readouterr()
        return Ran(code, said.out, said.err)


@pytest.fixture
def shell(cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell on a cluster of three, n1 leads."""
    monkeypatch.setenv("RAFTCTL_TOKEN", cluster.token)
    return Shell(cluster, capsys)


@pytest.fixture
def shell5(five: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell on a cluster of five, n1 leads."""
    monkeypatch.setenv("RAFTCTL_TOKEN", five.token)
    return Shell(five, capsys)
