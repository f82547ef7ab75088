"""What people see, on a console of a fixed width."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftctl.client import models as m
from raftctl.client import nodes
from raftctl.client.errors import NoQuorum
from raftctl.views import changes, raft, status, tasks
from tests.raftctl.views.samples import NOW, attempt, drawn, node_info, node_row, task, view

PAGE = """\
default  leader n3  term 4  quorum 4/5  commit 1204  queue 14 pending 2 running

Executing
NODE  SLOT  TASK                            ID   ATTEMPT  PROGRESS       ELAPSED
────────────────────────────────────────────────────────────────────────────────
n1       0  render-tile 17 --tiles 8x8 --…  t17        1  ━━━━━━━━  62%     4.2s
n2       0  render-tile 18 --tiles 8x8 --…  t18        2  -                 4.2s

Free Nodes
NODE  ROLE           STATE  SLOTS  LAST SEEN
────────────────────────────────────────────
n3    voter, leader  ready    1/1   90ms ago
n4    voter          ready    1/2   1.4s ago

Away
NODE  ROLE   STATE                  ADDRESS
──────────────────────────────────────────────────
n5    voter  lost, does not answer  127.0.0.1:4005

Pending  and 12 more
ID   TASK                                                      PRIORITY  WAITING
────────────────────────────────────────────────────────────────────────────────
t19  render-tile 42                                                   0    1m01s
t20  render-tile 42                                                   0    1m01s

Recent  43 succeeded, 1 failed, 0 cancelled
ID   TASK                                         STATE      NODE  TOOK    ENDED
────────────────────────────────────────────────────────────────────────────────
t16  render-tile 42                               succeeded  n4    1.5s  58s ago
t15  render-tile 42                               failed     n2    1.5s  58s ago"""


def test_the_status_page() -> None:
    assert drawn(status.page(view(), "default", NOW)) == PAGE


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_width_breaks_a_row(width: int) -> None:
    """Ids, nodes and numbers stay whole whatever the width; only the task's words give way."""
    text = drawn(status.page(view(), "default", NOW), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for word in ("t17", "t18", "Free Nodes", "4.2s", "succeeded", "127.0.0.1:4005"):
        assert word in text
    assert sum(line.startswith(("n1 ", "n2 ")) for line in lines) == 2


def test_a_stale_page_says_why_and_as_of_when() -> None:
    stale = replace(view(stale=True), problem=NoQuorum("no quorum: 2 of 5 voters are up"))
    lines = drawn(status.page(stale, "default", NOW), 120).splitlines()
    assert "leader none" in lines[0]
    assert lines[1] == "STALE: no quorum: 2 of 5 voters are up; as n3 knew it at index 1204"


def test_a_live_page_counts_on_and_keeps_to_its_room() -> None:
    text = drawn(status.page(view(), "default", NOW, since_ms=3_000, limit=1), 100)
    assert "Executing  1 of 2" in text
    assert "7.2s" in text
    assert "t18" not in text


def test_a_node_that_the_leader_does_not_hear_is_away() -> None:
    seen = view()
    rows = (node_row("n3"), node_row("n1", reachable=False), node_row("n2", eligibility="cordoned"))
    seen = replace(seen, status=replace(seen.status, nodes=rows))
    table = status.away(seen)
    assert table is not None
    text = drawn(table)
    assert "cut off from the leader" in text
    assert "cordoned" in text
    assert "n3" not in text


def test_a_node_with_a_full_disk_is_away_for_that_and_not_for_a_cut() -> None:
    seen = view()
    rows = (node_row("n3"), node_row("n1", reachable=False))
    full = {name: replace(info, disk_full=True) for name, info in seen.infos.items()}
    seen = replace(seen, status=replace(seen.status, nodes=rows), infos=full)
    table = status.away(seen)
    assert table is not None
    text = drawn(table)
    assert [line.split()[0] for line in text.splitlines() if "disk full" in line] == ["n3", "n1"]
    assert "cut off" not in text
    assert seen.degraded
    assert "disk full" in drawn(status.free_nodes(seen))


def test_an_empty_cluster_has_its_tables_all_the_same() -> None:
    bare = view()
    empty = replace(
        bare, status=replace(bare.status, executing=(), free_nodes=(), nodes=(), next_pending=(), recent=())
    )
    text = drawn(status.page(empty, "default", NOW))
    assert "Executing  nothing" in text
    assert "Free Nodes  none" in text
    assert "Away" not in text


def test_a_task_with_its_attempts() -> None:
    lost = attempt(1, "n1", m.AttemptOutcome.LOST, "n1 was lost")
    running = task(17, m.TaskState.RUNNING, lost, attempt(2, "n2", m.AttemptOutcome.RUNNING))
    text = drawn(tasks.detail(running, NOW))
    assert "1  n1       0  1.57   lost     1.5s  n1 was lost" in text
    assert "2  n2       0  1.58   running   59s" in text
    assert tasks.line(running, NOW, 60).plain.startswith("t17     running   n2      2       59s")
    assert len(tasks.line(running, NOW, 60).plain) <= 60


def test_a_change_is_one_line() -> None:
    running = task(17, m.TaskState.RUNNING, attempt(2, "n2", m.AttemptOutcome.RUNNING))
    line = changes.line(m.Change(12, NOW, "running", running, "", "")).plain
    assert line[8:] == "  t17    running     render-tile 42; on n2, attempt 2, token 1.58"
    leader = changes.line(m.Change(13, NOW, "leader", None, "n2", "term 5")).plain
    assert leader[8:] == "  n2     leader      term 5"


def test_the_consensus_cores() -> None:
    seen = view()
    text = drawn(raft.page(seen.infos, ["n5"], "default"))
    assert "n3    leader       4  n3        1204     1204  1-1204         -" in text
    assert "n5    silent" in text
    assert "Replication  as n3 sees it" in text


def test_the_consensus_cores_of_a_cluster_in_trouble_fit_into_80_columns() -> None:
    late = {"commit_index": 1204877, "last_applied": 1204877, "first_index": 1190001, "last_index": 1204878}
    late |= {"snapshot_index": 1195000, "snapshot_bytes": 63 << 20}
    peers = (nodes.PeerProgress("n4", 0, 1, "snapshot", 0, True, learner=True, pending_snapshot=1195000),)
    infos = {
        "n1": node_info("n1", "pre_candidate", **late, disk_full=True),
        "n3": node_info("n3", "leader", **late, membership="leaving", peers=peers, transfer_target="n1"),
        "n4": node_info("n4", membership="learner", first_index=1, last_index=0, leader=None),
    }
    text = drawn(raft.page(infos, (), "default"))
    assert text.splitlines()[0] == "default  leader n3  term 4  handing over to n1"
    assert "n1    pre_candidate       4  n3      1204877  1204877  1190001-1204878   1195000" in text
    assert "n3    leader, leaving     4  n3" in text
    assert "n4    learner             4  -" in text
    assert "empty" in text
    assert "disk full: n1" in text
    assert "n4 learner      0     1  snapshot to 1195000          0  yes" in text
    assert "63 MiB" in drawn(raft.page(infos, (), "default", wide=True), 140)


def test_members_and_what_becomes_of_them() -> None:
    a, b = "00000000000000a1", "127.0.0.1:40001"
    found = nodes.Membership(
        (
            nodes.Member("n1", a, b, True),
            nodes.Member("n2", a, b, True, leaving=True),
            nodes.Member("n4", a, b, False, promote=True),
            nodes.Member("n5", a, b, False, promote=True, replaces="n1"),
            nodes.Member("n6", a, b, False),
        ),
        joint=True,
        removed_stores=("00000000000000b1",),
        answered_by="n1",
        leads=True,
    )
    text = drawn(raft.members(found, "default"))
    assert "default  leader n1  a change is half done: two majorities must agree" in text
    assert "Members  1 voter, 3 learning" in text
    assert "n2    leaving  127.0.0.1:40001  00000000000000a1  leaves with this change" in text
    assert "n4    learner  127.0.0.1:40001  00000000000000a1  votes when caught up" in text
    assert "n5    learner  127.0.0.1:40001  00000000000000a1  replaces n1 when caught up" in text
    assert "removed stores: 00000000000000b1" in text
    stale = drawn(raft.members(replace(found, leads=False, joint=False, removed_stores=()), "default"))
    assert "leader none" in stale
    assert "STALE: as n1 has it" in stale


def test_bytes_as_people_read_them() -> None:
    sizes = (0, 812, 1023, 4200, 63 << 20, 5 << 40, 1 << 60)
    assert [raft.size(count) for count in sizes] == [
        "0 B", "812 B", "1023 B", "4.1 KiB", "63 MiB", "5.0 TiB", "1048576 TiB",
    ]  # fmt: skip


def test_times_that_have_not_come_are_dashes() -> None:
    waiting = task(19, m.TaskState.PENDING)
    assert tasks.line(waiting, NOW, 80).plain.split() == [
        "t19",
        "pending",
        "-",
        "-",
        "-",
        "1m01s",
        "ago",
        "render-tile",
        "42",
    ]
    assert "none yet" in drawn(tasks.detail(waiting, NOW))


def test_a_node_that_the_leader_has_never_heard_was_not_seen_just_now() -> None:
    found = view()
    rows = tuple(replace(row, last_seen_ms=None) for row in found.status.free_nodes)
    text = drawn(status.free_nodes(replace(found, status=replace(found.status, free_nodes=rows))))
    assert [line.split()[-1] for line in text.splitlines() if line.startswith(("n3", "n4"))] == ["-", "-"]
    assert "ago" not in text
