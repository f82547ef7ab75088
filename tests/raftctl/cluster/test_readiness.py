"""When a cluster may be called ready: the rule, and what is said while it is not."""

import dataclasses
import time
from collections.abc import Mapping

import pytest

from raftctl.cluster import readiness
from raftctl.cluster.layout import NodeRecord
from raftctl.cluster.readiness import ClusterView, NodeView, NotReady

LEADER = NodeView("n1", "leader", "n1", term=4, commit_index=9, last_applied=9, slots_ready=True, pid=11)
FOLLOWER = dataclasses.replace(LEADER, name="n2", role="follower", commit_index=8, pid=12)


def lacks(**views: NodeView | None) -> Mapping[str, str]:
    return ClusterView(views).missing()


def test_a_leader_that_all_follow_with_warm_slots_is_ready() -> None:
    assert lacks(n1=LEADER, n2=FOLLOWER) == {}


@pytest.mark.parametrize(
    ("view", "lack"),
    [
        (None, "does not answer"),
        (dataclasses.replace(FOLLOWER, leader=""), "does not follow n1"),
        (dataclasses.replace(FOLLOWER, leader="n3"), "does not follow n1"),
        (dataclasses.replace(FOLLOWER, term=3), "does not follow n1"),
        (dataclasses.replace(FOLLOWER, last_applied=8), "has applied 8 of 9"),
        (dataclasses.replace(FOLLOWER, slots_ready=False), "warms its slots up"),
    ],
)
def test_what_a_node_may_lack(view: NodeView | None, lack: str) -> None:
    assert lacks(n1=LEADER, n2=view) == {"n2": lack}


def test_without_a_leader_nobody_is_ready() -> None:
    lost = dataclasses.replace(FOLLOWER, leader="")
    assert lacks(n2=lost) == {"n2": "knows no leader"}
    assert lacks(n2=FOLLOWER) == {"n2": "takes n1 for the leader, who does not lead"}


def test_of_two_leaders_the_one_of_the_later_term_counts() -> None:
    older = dataclasses.replace(LEADER, name="n3", leader="n3", term=3)
    seen = ClusterView({"n3": older, "n1": LEADER, "n2": FOLLOWER})
    assert seen.leader == LEADER
    assert seen.missing() == {"n3": "does not follow n1"}
    assert seen.missing(excused=["n3"]) == {}


class Script:
    """Answers from a list of views per node, the last one for ever."""

    def __init__(self, *rounds: NodeView | None, cut_off: bool = False) -> None:
        self.rounds = list(rounds)
        self.cut_off = cut_off

    def view(self, node: NodeRecord, timeout_s: float) -> NodeView | None:
        if node.name == "n1":
            return LEADER
        return self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]

    def is_cut_off(self, node: NodeRecord, timeout_s: float) -> bool:
        return self.cut_off


@pytest.fixture(autouse=True)
def _listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "is_listening", lambda port: True)


NODES = (NodeRecord("n1", "1", 1), NodeRecord("n2", "2", 2))


def wait(script: Script, timeout_s: float, said: list[str]) -> ClusterView:
    return readiness.wait_ready(NODES, script, time.monotonic() + timeout_s, lambda: None, said.append)


def test_waiting_ends_when_all_are_ready_and_says_what_it_waits_for() -> None:
    said: list[str] = []
    cold = dataclasses.replace(FOLLOWER, slots_ready=False)
    assert wait(Script(None, cold, FOLLOWER), 20, said).missing() == {}
    assert said == ["1 of 2 nodes ready; n2 does not answer", "1 of 2 nodes ready; n2 warms its slots up"]


def test_waiting_ends_when_its_time_is_over() -> None:
    with pytest.raises(NotReady, match="n2 does not answer") as caught:
        wait(Script(None), 0.1, [])
    assert caught.value.missing == {"n2": "does not answer"}


def test_waiting_ends_when_it_has_become_vain() -> None:
    def check() -> None:
        raise LookupError("n2 ended")

    with pytest.raises(LookupError):
        readiness.wait_ready(NODES, Script(None), time.monotonic() + 20, check, lambda _: None)


def test_a_node_that_is_cut_off_is_excused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "EXCUSE_AFTER_S", 0.1)
    lost = dataclasses.replace(FOLLOWER, leader="")
    assert wait(Script(lost, cut_off=True), 20, []).missing() == {"n2": "does not follow n1"}
    with pytest.raises(NotReady):
        wait(Script(lost, cut_off=False), 0.3, [])
