"""Up, stop, start and down over fake nodes: each converges, and what fails is undone."""

import dataclasses
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftctl.cluster import control, ports
from raftctl.cluster.launcher import Conflict, Launcher, UpRequest
from raftctl.cluster.layout import BrokenState, ClusterDirectory
from raftctl.cluster.lock import exclusive
from raftctl.cluster.process import ProcessIdentity, is_alive, marked_with, send_signal, wait_gone
from raftctl.cluster.readiness import NotReady
from raftctl.cluster.spawn import MARK_VARIABLE, StartFailed, mark_of
from raftctl.errors import CliError, ExitCode
from tests.raftctl.cluster.conftest import FakeProbe

Started = Callable[[], dict[str, ProcessIdentity]]
TIMEOUT_S = 20.0


def up(launcher: Launcher, size: int = 3, **options: Any) -> None:
    launcher.up(UpRequest(size=size, **options), wait=True, timeout_s=TIMEOUT_S)


def test_up_starts_every_node_and_down_leaves_nothing(launcher: Launcher, started: Started) -> None:
    outcome = launcher.up(UpRequest(size=3), wait=True, timeout_s=TIMEOUT_S)
    assert outcome.created
    assert outcome.started == ("n1", "n2", "n3")
    assert outcome.seen is not None
    assert outcome.seen.leader is not None
    processes = started()
    assert set(processes) == {"n1", "n2", "n3"}
    assert launcher.down()
    assert not any(map(is_alive, processes.values()))
    assert not launcher.directory.exists()
    assert not launcher.down()


def test_every_founding_node_is_given_the_same_members(launcher: Launcher) -> None:
    up(launcher)
    identities = [
        json.loads((launcher.directory.data(name) / "identity.json").read_text())
        for name in ("n1", "n2", "n3")
    ]
    assert [identity["name"] for identity in identities] == ["n1", "n2", "n3"]
    record = launcher.directory.require()
    members = [f"--member={node.name}={node.store_id}@{node.address}" for node in record.nodes]
    assert all(identity["members"] == members for identity in identities)


def test_up_of_a_running_cluster_starts_nothing(launcher: Launcher, started: Started) -> None:
    up(launcher)
    before = started()
    outcome = launcher.up(UpRequest(size=3), wait=True, timeout_s=TIMEOUT_S)
    assert not outcome.created
    assert outcome.started == ()
    assert started() == before


def test_up_without_a_size_takes_the_cluster_as_it_is(launcher: Launcher) -> None:
    up(launcher, size=2, slots=4)
    assert launcher.up(UpRequest(), wait=True, timeout_s=TIMEOUT_S).started == ()


def test_up_starts_what_is_down_with_what_it_had(launcher: Launcher, started: Started) -> None:
    up(launcher)
    before = started()
    control.kill_nodes(launcher.directory, launcher.directory.require().nodes[1:2])
    assert set(started()) == {"n1", "n3"}
    outcome = launcher.up(UpRequest(size=3), wait=True, timeout_s=TIMEOUT_S)
    assert outcome.started == ("n2",)
    after = started()
    assert after["n1"] == before["n1"]
    assert after["n2"] != before["n2"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (UpRequest(size=5), "3 nodes, not 5"),
        (UpRequest(slots=2), "1 slots a node, not 2"),
        (UpRequest(allow=("shell",)), "nothing allowed, not shell"),
        (UpRequest(fault_injection=False), "fault injection on"),
    ],
)
def test_up_of_another_kind_of_cluster_is_a_conflict(
    launcher: Launcher, request_: UpRequest, said: str
) -> None:
    up(launcher)
    with pytest.raises(Conflict, match=said) as caught:
        launcher.up(request_, wait=True, timeout_s=TIMEOUT_S)
    assert caught.value.exit_code is ExitCode.REJECTED


def test_stop_keeps_what_start_needs(launcher: Launcher, started: Started) -> None:
    up(launcher)
    record = launcher.directory.require()
    assert launcher.stop() == ("n1", "n2", "n3")
    assert launcher.stop() == ()
    assert started() == {}
    assert launcher.start(wait=True, timeout_s=TIMEOUT_S).started == ("n1", "n2", "n3")
    assert launcher.start(wait=True, timeout_s=TIMEOUT_S).started == ()
    assert launcher.directory.require() == record


def test_start_after_every_node_was_killed(launcher: Launcher, started: Started) -> None:
    up(launcher)
    nodes = launcher.directory.require().nodes
    assert control.kill_nodes(launcher.directory, nodes) == ("n1", "n2", "n3")
    assert launcher.start(wait=True, timeout_s=TIMEOUT_S).started == ("n1", "n2", "n3")
    assert len(started()) == 3


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_cluster_that_is_not_there_cannot_be_started_or_stopped(launcher: Launcher, verb: str) -> None:
    with pytest.raises(CliError) as caught:
        launcher.stop() if verb == "stop" else launcher.start(wait=True, timeout_s=1)
    assert caught.value.exit_code is ExitCode.NOT_FOUND


def test_a_node_that_cannot_start_takes_the_others_back_down(launcher: Launcher) -> None:
    launcher.directory.path.parent.mkdir(parents=True)
    (launcher.directory.path.parent / "crash").touch()
    with pytest.raises(StartFailed) as caught:
        up(launcher)
    assert "exit code 1" in caught.value.message
    assert any("crashed, as the test wants it" in line for line in caught.value.said)
    assert not launcher.directory.exists()


def test_what_failed_can_be_kept_to_be_looked_at(launcher: Launcher) -> None:
    launcher.directory.path.parent.mkdir(parents=True)
    (launcher.directory.path.parent / "crash").touch()
    with pytest.raises(StartFailed):
        launcher.up(UpRequest(size=2), wait=True, timeout_s=TIMEOUT_S, keep_on_failure=True)
    assert launcher.directory.require().names == ("n1", "n2")
    assert launcher.down()


def test_a_directory_that_cannot_be_made_is_said(launcher: Launcher) -> None:
    launcher.directory.path.parent.mkdir(parents=True)
    (launcher.directory.path.parent / "refuse").touch()
    with pytest.raises(StartFailed, match="raftd init of n1 failed") as caught:
        up(launcher)
    assert caught.value.said == ("error: refused, as the test wants it",)
    assert not launcher.directory.exists()


def test_a_cluster_without_a_leader_is_not_ready(launcher: Launcher) -> None:
    lost = FakeProbe(launcher.directory, leader="")
    with pytest.raises(NotReady, match="n1, n2 knows no leader") as caught:
        dataclasses.replace(launcher, probe=lost).up(UpRequest(size=2), wait=True, timeout_s=3)
    assert caught.value.exit_code is ExitCode.WAIT_TIMED_OUT
    assert not launcher.directory.exists()


def test_a_node_that_was_cut_off_on_purpose_is_not_waited_for(launcher: Launcher) -> None:
    up(launcher)
    cut = dataclasses.replace(launcher, probe=FakeProbe(launcher.directory, cut_off=frozenset({"n3"})))
    outcome = cut.up(UpRequest(), wait=True, timeout_s=TIMEOUT_S)
    assert outcome.seen is not None
    assert set(outcome.seen.missing()) == {"n3"}


def test_an_up_that_died_half_way_is_begun_anew(launcher: Launcher, started: Started) -> None:
    up(launcher)
    left = started()
    half = dataclasses.replace(launcher.directory.require(), complete=False)
    launcher.directory.write(half)
    outcome = launcher.up(UpRequest(size=3), wait=True, timeout_s=TIMEOUT_S)
    assert outcome.created
    assert outcome.record.cluster_id != half.cluster_id
    assert not any(map(is_alive, left.values()))


def test_a_port_that_was_taken_meanwhile_is_replaced(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        choices = [(*ports.free_ports(1), thief.getsockname()[1]), ports.free_ports(2)]
        monkeypatch.setattr(ports, "free_ports", lambda _: choices.pop(0))
        taken = thief.getsockname()[1]
        outcome = launcher.up(UpRequest(size=2), wait=True, timeout_s=TIMEOUT_S)
    assert choices == []
    assert taken not in {node.port for node in outcome.record.nodes}


def test_a_node_whose_port_is_in_use_says_so(launcher: Launcher) -> None:
    up(launcher)
    launcher.stop()
    node = launcher.directory.require().nodes[1]
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", node.port))
        thief.listen()
        with pytest.raises(StartFailed, match=f"port {node.port} of n2 is in use by another program"):
            launcher.start_nodes(["n2"], TIMEOUT_S)


def test_a_node_that_nobody_wrote_down_is_found_again(launcher: Launcher, started: Started) -> None:
    up(launcher, size=2)
    before = started()
    launcher.directory.forget_process("n1")
    assert launcher.start(wait=True, timeout_s=TIMEOUT_S).started == ()
    assert started() == before


def test_a_second_process_on_the_same_directory_is_refused(launcher: Launcher) -> None:
    up(launcher, size=1)
    record = launcher.directory.require()
    moved = dataclasses.replace(
        record, nodes=(dataclasses.replace(record.nodes[0], port=ports.free_ports(1)[0]),)
    )
    (launcher.directory.node("n1") / "view.json").unlink()
    kept = launcher.directory.process("n1")
    assert kept is not None
    launcher.directory.write(moved)
    launcher.directory.forget_process("n1")
    with pytest.raises(StartFailed, match="exit code 3"):
        launcher.start_nodes(["n1"], TIMEOUT_S)
    assert is_alive(kept.identity)
    launcher.directory.write_process("n1", kept.identity)


def test_a_recycled_pid_is_never_killed(launcher: Launcher, started: Started) -> None:
    up(launcher, size=2)
    n1 = started()["n1"]
    launcher.stop_nodes(["n2"])
    # As if n2 had had this pid before n1 was given it: the same number, another beginning.
    launcher.directory.write_process("n2", dataclasses.replace(n1, started=n1.started + "0"))
    assert set(started()) == {"n1"}
    record = launcher.directory.require()
    assert control.kill_nodes(launcher.directory, [record.node("n2")]) == ()
    assert launcher.stop_nodes(["n2"]) == ()
    assert is_alive(n1)


def test_a_node_that_ignores_term_is_killed(launcher: Launcher, started: Started) -> None:
    up(launcher, size=1)
    launcher.stop()
    (launcher.directory.node("n1") / "deaf").touch()
    (launcher.directory.node("n1") / "view.json").unlink()
    launcher.start_nodes(["n1"], TIMEOUT_S)
    (deaf,) = started().values()
    assert launcher.stop_nodes(["n1"], grace_s=0.3) == ("n1",)
    assert not is_alive(deaf)


def test_what_a_node_left_behind_goes_with_the_cluster(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftctl.cluster.launcher.LEFTOVER_GRACE_S", 0.3)
    up(launcher, size=1)
    launcher.stop()
    (launcher.directory.node("n1") / "child").touch()
    (launcher.directory.node("n1") / "view.json").unlink()
    launcher.start_nodes(["n1"], TIMEOUT_S)
    mark = mark_of(launcher.directory.require(), "n1")
    assert launcher.down()
    assert marked_with(MARK_VARIABLE, [mark]) == ()


def test_a_broken_cluster_goes_only_when_purged(launcher: Launcher, started: Started) -> None:
    up(launcher, size=2)
    processes = started()
    (launcher.directory.path / "cluster.json").write_text("{")
    with pytest.raises(BrokenState):
        launcher.up(UpRequest(), wait=True, timeout_s=TIMEOUT_S)
    with pytest.raises(BrokenState):
        launcher.down()
    assert all(map(is_alive, processes.values()))
    assert launcher.down(purge=True)
    assert not any(map(is_alive, processes.values()))
    assert not launcher.directory.exists()


def test_only_one_change_at_a_time_and_it_says_whose(launcher: Launcher) -> None:
    up(launcher, size=1)
    with exclusive("c", 1), pytest.raises(CliError, match=r"is being changed by pid \d+") as caught:
        launcher.stop()
    assert caught.value.exit_code is ExitCode.REJECTED


def test_the_settings_file_is_copied_and_part_of_the_bargain(launcher: Launcher, tmp_path: Path) -> None:
    config = tmp_path / "raftd.toml"
    config.write_text("tick_ms = 40\n")
    up(launcher, size=1, config=config)
    assert ClusterDirectory("c").config_file.read_text() == "tick_ms = 40\n"
    made = json.loads((ClusterDirectory("c").data("n1") / "identity.json").read_text())
    assert made["config"] == str(ClusterDirectory("c").config_file), "what it is made with is in it, too"
    up(launcher, size=1, config=config)
    config.write_text("tick_ms = 60\n")
    with pytest.raises(Conflict, match="another settings file"):
        up(launcher, size=1, config=config)


def test_a_node_runs_in_a_session_and_directory_of_its_own(launcher: Launcher, started: Started) -> None:
    up(launcher, size=1)
    (identity,) = started().values()
    assert os.getsid(identity.pid) == identity.pid


def test_pause_and_resume(launcher: Launcher) -> None:
    up(launcher, size=1)
    node = launcher.directory.require().nodes[0]
    assert control.pause_nodes(launcher.directory, [node]) == ("n1",)
    assert control.node_status(launcher.directory, node).word == "paused"
    assert control.pause_nodes(launcher.directory, [node]) == ()
    assert control.cluster_word(launcher.directory, launcher.directory.require()) == "degraded"
    assert control.resume_nodes(launcher.directory, [node]) == ("n1",)
    assert control.node_status(launcher.directory, node).word == "running"
    control.kill_nodes(launcher.directory, [node])
    assert control.node_status(launcher.directory, node).word == "down"
    with pytest.raises(CliError, match="n1 is down") as caught:
        control.pause_nodes(launcher.directory, [node])
    assert caught.value.exit_code is ExitCode.UNAVAILABLE


def test_words_for_nodes(launcher: Launcher) -> None:
    up(launcher)
    record = launcher.directory.require()

    def names(*words: str) -> list[str]:
        return [node.name for node in control.resolve_nodes(record, words, launcher.probe, 2.0)]

    assert names("n3", "n2") == ["n3", "n2"]
    assert names("n2,n3", "n2") == ["n2", "n3"]
    assert names("leader") == ["n1"]
    with pytest.raises(CliError) as unknown:
        names("n7")
    assert unknown.value.exit_code is ExitCode.NOT_FOUND
    with pytest.raises(CliError) as nobody:
        control.resolve_nodes(record, ["leader"], FakeProbe(launcher.directory, leader=""), 2.0)
    assert nobody.value.exit_code is ExitCode.UNAVAILABLE


def test_one_node_hands_over_as_it_stops_and_a_whole_cluster_does_not(launcher: Launcher) -> None:
    def signals() -> list[str]:
        file = launcher.directory.path.parent / "signals"
        lines = sorted(file.read_text().splitlines())
        file.unlink()
        return lines

    up(launcher)
    launcher.stop_nodes(["n1"])
    assert signals() == ["n1 SIGTERM"]
    launcher.stop()
    assert signals() == ["n2 SIGQUIT", "n3 SIGQUIT"]
    launcher.start(wait=True, timeout_s=TIMEOUT_S)
    launcher.stop_nodes(["n1", "n2", "n3"])
    assert signals() == ["n1 SIGQUIT", "n2 SIGQUIT", "n3 SIGQUIT"]
    launcher.start(wait=True, timeout_s=TIMEOUT_S)
    launcher.down()
    assert signals() == ["n1 SIGQUIT", "n2 SIGQUIT", "n3 SIGQUIT"]


def test_a_paused_node_can_be_killed_and_stopped(launcher: Launcher, started: Started) -> None:
    up(launcher, size=2)
    processes = started()
    record = launcher.directory.require()
    control.pause_nodes(launcher.directory, record.nodes)
    assert control.kill_nodes(launcher.directory, [record.node("n1")]) == ("n1",)
    assert launcher.stop() == ("n2",)
    assert not any(map(is_alive, processes.values()))


def test_signals_go_to_the_node_alone(launcher: Launcher, started: Started) -> None:
    up(launcher, size=2)
    processes = started()
    send_signal(processes["n1"], signal.SIGKILL)
    wait_gone([processes["n1"]], 5)
    assert is_alive(processes["n2"])
