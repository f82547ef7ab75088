"""The Admin service: what a node says of itself, and its cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from raftd.errors import NodeNotFound
from raftd.node.bulletin import Bulletin
from raftd.node.clock import ClusterClock, SystemClock
from raftd.node.members import Members
from raftd.pb import admin_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.raft.ready import ProgressStatus, Status
from raftd.raft.types import Configuration, Role, Snapshot
from raftd.scheduler.commands import Command
from raftd.scheduler.effects import MembersChanged
from raftd.scheduler.model import Eligibility, MemberRecord, NodeRole, Settings, Standing
from raftd.scheduler.replies import Reply
from raftd.scheduler.state import State
from raftd.services.admin import AdminService
from raftd.services.forwarding import Forwarder
from raftd.services.operations import Operations
from raftd.transport.base import LocalNode
from raftd.transport.caller import FORWARDED_KEY, Caller
from raftd.transport.faults import FaultTable
from tests.scheduler.world import World, registration
from tests.services.hosts import CLUSTER, FakeNode, Host, channel_to, failure_of, make_host, run, serving

T = TypeVar("T")

NOW_MS = 1_900_000_000_000
LOCAL = LocalNode(CLUSTER, 1, "n1", "")
STATUS = Status(
    id=1,
    role=Role.FOLLOWER,
    term=7,
    vote=9,
    leader=2,
    commit=20,
    applied=19,
    first_index=1,
    last_index=25,
    durable_index=24,
    uncommitted_bytes=0,
    pending_reads=0,
    outstanding_readies=0,
    configuration=Configuration((1, 2, 3)),
    progress=(),
)


@dataclass
class Facts:
    """Whatever the test says."""

    now: Status = STATUS
    fsync_ms: float = 1.5
    storage_queue: int = 3
    slots_ready: bool = True
    snapshot_bytes: int = 4096
    disk_full: bool = True
    membership: str = "voter"
    removed_stores: tuple[int, ...] = (0xDEAD, 7)

    def status(self) -> Status:
        return self.now


class StoppedClock(SystemClock):
    """It is always the same time."""

    def wall_ms(self) -> int:
        return NOW_MS

    def monotonic_ms(self) -> int:
        return 0


class Control:
    """Remembers what it was asked for (``MembershipControl`` and ``Snapshotting`` of ``raftd.services.admin``,
    ``Consensus`` of ``raftd.services.operations``); what is proposed is applied."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.facts = Facts()
        self.fault_injection = True
        self.snapshots_count = 0
        self.world = World(["n1", "n2"])
        self.world.do(replace(registration("n9"), name="w9", store_id=99, role=NodeRole.WORKER))
        self.world.lose("w9")
        self.bulletin: Bulletin | None = None
        self.leader_moved = asyncio.Event()

    def bulletin_of(self, members: Members) -> Bulletin:
        self.bulletin = Bulletin(self, members)
        return self.bulletin

    def status(self) -> Status:
        return self.facts.now

    async def leader_changed(self) -> None:
        await self.leader_moved.wait()
        self.leader_moved.clear()

    async def add(
        self, name: str, store_id: int, address: str, *, learner: bool, replaces: str, timeout: float
    ) -> int:
        self.asked.append(("add", name, store_id, address, learner, replaces))
        return 5

    async def promote(self, name: str, *, timeout: float) -> int:
        self.asked.append(("promote", name))
        return 6

    async def remove(self, name: str, *, timeout: float) -> int:
        if name == "n9":
            raise NodeNotFound("there is no member n9")
        self.asked.append(("remove", name))
        return 7

    async def transfer(self, target: str, *, timeout: float) -> tuple[str, int]:
        self.asked.append(("transfer", target))
        return "n2", 8

    async def propose(self, commands: Sequence[Command], *, timeout: float) -> tuple[Reply, ...]:
        self.asked += [(type(command).__name__,) for command in commands]
        return self.world.apply(*commands).replies

    async def read(self, read: Callable[[], T], *, timeout: float) -> T:
        return read()

    async def take_snapshot(self) -> Snapshot:
        self.snapshots_count += 1
        return Snapshot(19, 7, Configuration((1, 2, 3)), 4096)


def admin_of(path: Path, local: LocalNode, control: Control, forwarder: Forwarder) -> AdminService:
    """The real service of one of three nodes."""
    state = State()
    state.members = tuple(
        MemberRecord(f"n{number}", number, f"h:{number}", Standing.VOTER) for number in (1, 2, 3)
    )
    members = Members(lambda: state)
    return AdminService(
        local=local,
        incarnation=4,
        address="h:1",
        started_at_ms=1_700_000_000_000,
        members=members,
        bulletin=control.bulletin_of(members),
        facts=control.facts,
        faults=FaultTable(local.name, path / f"cuts-{local.name}.json", control.fault_injection),
        control=control,
        snapshots=control,
        operations=Operations(control, lambda: control.world.state, ClusterClock(StoppedClock())),
        forwarder=forwarder,
    )


def service(
    path: Path, *, enabled: bool = True, control: Control | None = None, leads: bool = True
) -> tuple[AdminService, Facts]:
    control = control or Control()
    control.fault_injection = enabled
    node = FakeNode()
    node.follow(1, leads=leads)
    caller = Caller(LOCAL, FaultTable("n1", path / "caller-cuts.json", enabled))
    return admin_of(path, LOCAL, control, Forwarder(node, lambda _: None, caller)), control.facts


def test_a_node_tells_who_it_is_and_what_its_core_knows(tmp_path: Path) -> None:
    async def scenario() -> None:
        admin, facts = service(tmp_path)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            info = await AdminStub(channel).NodeInfo(pb.NodeInfoRequest())
            assert (info.name, info.cluster_id, info.store_id) == (
                "n1",
                "00000000000000c1",
                "0000000000000001",
            )
            assert (info.incarnation, info.address, info.role, info.term) == (4, "h:1", "follower", 7)
            assert (info.leader, info.leader_address) == ("n2", "h:2")
            assert info.voted_for == "0000000000000009", "a store that is no member is named by its id"
            assert (info.commit_index, info.last_applied, info.first_index, info.last_index) == (
                20,
                19,
                1,
                25,
            )
            assert (info.fsync_ms, info.storage_queue, info.slots_ready) == (1.5, 3, True)
            assert info.fault_injection
            assert not info.peers

            row = ProgressStatus(2, "replicate", 18, 21, 1, 64, True, False)
            facts.now = replace(
                STATUS, role=Role.LEADER, leader=1, vote=1, progress=(replace(row, node=1), row)
            )
            info = await AdminStub(channel).NodeInfo(pb.NodeInfoRequest())
            assert (info.role, info.leader, info.voted_for) == ("leader", "n1", "n1")
            (peer,) = info.peers
            assert (peer.name, peer.match_index, peer.next_index, peer.progress) == (
                "n2",
                18,
                21,
                "replicate",
            )
            assert peer.in_flight == 1
            assert peer.recently_active

            assert (info.membership, info.snapshot_bytes, info.disk_full) == ("voter", 4096, True)
            told = await AdminStub(channel).Members(pb.MembersRequest())
            assert list(told.removed_stores) == ["0000000000000007", "000000000000dead"]
            assert not told.joint
            members = told.members
            assert [(member.name, member.address, member.voter) for member in members] == [
                ("n1", "h:1", True),
                ("n2", "h:2", True),
                ("n3", "h:3", True),
            ]

    run(scenario())


def test_who_leads_and_who_the_members_are_is_told_again_with_every_change(tmp_path: Path) -> None:
    async def scenario() -> None:
        control = Control()
        admin, facts = service(tmp_path, control=control)
        host = make_host(tmp_path, admin=admin)
        assert control.bulletin is not None
        async with serving(host), channel_to(host.address) as channel:
            noticing = asyncio.create_task(control.bulletin.run())
            watch = AdminStub(channel).WatchMembers(pb.WatchMembersRequest())
            first = await asyncio.wait_for(watch.read(), 20)
            assert isinstance(first, pb.WatchMembersResponse)
            assert (first.node, first.leader, first.leader_address, first.term) == ("n1", "n2", "h:2", 7)
            assert [member.name for member in first.members.members] == ["n1", "n2", "n3"]
            assert len(first.members.removed_stores) == 2

            facts.now = replace(STATUS, leader=0, term=8)
            control.leader_moved.set()
            none = await asyncio.wait_for(watch.read(), 20)
            assert isinstance(none, pb.WatchMembersResponse)
            assert (none.leader, none.term) == ("", 0), "a term without a leader says nothing"

            # A member that joins, or has another address, is an effect of an entry; other entries wake nobody.
            facts.now = replace(STATUS, leader=3, term=8)
            control.bulletin.on_effects(21, [MembersChanged(21, ())])
            last = await asyncio.wait_for(watch.read(), 20)
            assert isinstance(last, pb.WatchMembersResponse)
            assert (last.leader, last.leader_address, last.term) == ("n3", "h:3", 8)
            noticing.cancel()
            watch.cancel()

    run(scenario())


def test_cuts_are_set_lifted_and_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        admin, _ = service(tmp_path)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            there, back = pb.Cut(from_node="n1", to_node="n2"), pb.Cut(from_node="n2", to_node="n1")
            elsewhere = pb.Cut(from_node="n2", to_node="n3")
            answer = await stub.SetFaults(pb.SetFaultsRequest(add=[there, back, elsewhere]))
            assert list(answer.cuts) == [there, back], "a node keeps the cuts that name it"
            answer = await stub.SetFaults(pb.SetFaultsRequest(remove=[there]))
            assert list(answer.cuts) == [back]
            told = await stub.GetFaults(pb.GetFaultsRequest())
            assert (told.fault_injection, list(told.cuts)) == (True, [back])
            answer = await stub.SetFaults(pb.SetFaultsRequest(heal=True, add=[there]))
            assert list(answer.cuts) == [there]
            answer = await stub.SetFaults(pb.SetFaultsRequest(heal=True))
            assert not answer.cuts

    run(scenario())


def test_bad_cuts_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        admin, _ = service(tmp_path)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            good = pb.Cut(from_node="n1", to_node="n2")
            for bad, code in (
                (pb.Cut(from_node="n1", to_node="n9"), grpc.StatusCode.NOT_FOUND),
                (pb.Cut(from_node="n1", to_node="n1"), grpc.StatusCode.INVALID_ARGUMENT),
                (pb.Cut(from_node="n1"), grpc.StatusCode.INVALID_ARGUMENT),
            ):
                assert (await failure_of(stub.SetFaults(pb.SetFaultsRequest(add=[good, bad]))))[0] is code
            assert not (await stub.GetFaults(pb.GetFaultsRequest())).cuts

    run(scenario())


def test_a_node_without_fault_injection_refuses_cuts(tmp_path: Path) -> None:
    async def scenario() -> None:
        admin, _ = service(tmp_path, enabled=False)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            cut = pb.Cut(from_node="n1", to_node="n2")
            code, trailing = await failure_of(stub.SetFaults(pb.SetFaultsRequest(add=[cut])))
            assert (code, trailing["raftd-error"]) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "fault_injection_off",
            )
            assert not (await stub.GetFaults(pb.GetFaultsRequest())).fault_injection

    run(scenario())


def test_changes_are_handed_to_the_leader_with_what_was_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        control = Control()
        admin, _ = service(tmp_path, control=control)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            added = await stub.AddMember(
                pb.AddMemberRequest(
                    name="n6", store_id="00000000000000ff", address="h:6", learner=True, replaces="n3"
                )
            )
            promoted = await stub.PromoteMember(pb.PromoteMemberRequest(name="n6"))
            removed = await stub.RemoveMember(pb.RemoveMemberRequest(name="n3"))
            handed = await stub.TransferLeadership(pb.TransferLeadershipRequest(target="n2"))
            taken = await stub.TakeSnapshot(pb.TakeSnapshotRequest())
            assert (added.index, promoted.index, removed.index) == (5, 6, 7)
            assert (handed.leader, handed.term) == ("n2", 8)
            assert (taken.index, taken.term, taken.size_bytes, taken.first_index) == (19, 7, 4096, 1)
            assert control.asked == [
                ("add", "n6", 0xFF, "h:6", True, "n3"),
                ("promote", "n6"),
                ("remove", "n3"),
                ("transfer", "n2"),
            ]
            code, _ = await failure_of(stub.RemoveMember(pb.RemoveMemberRequest(name="n9")))
            assert code is grpc.StatusCode.NOT_FOUND
            for wrong in (
                pb.AddMemberRequest(name="n6", store_id="xyz", address="h:6"),
                pb.AddMemberRequest(name="n6", store_id="0", address="h:6"),
                pb.AddMemberRequest(name="n6", store_id="6", address="h"),
                pb.AddMemberRequest(name="n6", store_id="6", address="h:0"),
            ):
                code, _ = await failure_of(stub.AddMember(wrong))
                assert code is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario())


CHANGES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "add": lambda stub: stub.AddMember(
        pb.AddMemberRequest(name="n6", store_id="00000000000000ff", address="h:6"), timeout=20
    ),
    "promote": lambda stub: stub.PromoteMember(pb.PromoteMemberRequest(name="n6"), timeout=20),
    "remove": lambda stub: stub.RemoveMember(pb.RemoveMemberRequest(name="n3"), timeout=20),
    "transfer": lambda stub: stub.TransferLeadership(pb.TransferLeadershipRequest(target="n2"), timeout=20),
    "SetEligibility": lambda stub: stub.SetEligibility(
        pb.SetEligibilityRequest(node="n1", eligibility="cordoned"), timeout=20
    ),
    "SetLabels": lambda stub: stub.SetLabels(pb.SetLabelsRequest(node="n1", set={"zone": "a"}), timeout=20),
    "ForgetNode": lambda stub: stub.ForgetNode(pb.ForgetNodeRequest(node="w9"), timeout=20),
    "SetSettings": lambda stub: stub.SetSettings(pb.SetSettingsRequest(changes={"max_queue": 9}), timeout=20),
}


def test_an_operator_cordons_drains_labels_and_forgets_nodes(tmp_path: Path) -> None:
    async def scenario() -> None:
        control = Control()
        world = control.world
        admin, _ = service(tmp_path, control=control)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            world.occupy(world.submit())
            drained = await stub.SetEligibility(
                pb.SetEligibilityRequest(node="n1", eligibility="draining", deadline_ms=5_000)
            )
            assert (drained.index, drained.running) == (world.state.applied_index, 1)
            node = world.state.nodes["n1"]
            assert (node.eligibility, node.drain_deadline_ms) == (Eligibility.DRAINING, NOW_MS + 5_000)
            await stub.SetEligibility(pb.SetEligibilityRequest(node="n1", eligibility="draining"))
            assert world.state.nodes["n1"].drain_deadline_ms == 0, "it waits for ever"
            await stub.SetLabels(pb.SetLabelsRequest(node="n2", set={"zone": "a", "gpu": ""}))
            labelled = await stub.SetLabels(pb.SetLabelsRequest(node="n2", remove=["gpu"]))
            assert dict(labelled.labels) == {"zone": "a"}
            code, _ = await failure_of(stub.ForgetNode(pb.ForgetNodeRequest(node="n2")))
            assert code is grpc.StatusCode.FAILED_PRECONDITION, "it is a member"
            await stub.ForgetNode(pb.ForgetNodeRequest(node="w9"))
            assert "w9" not in world.state.nodes
            for call, wanted in (
                (
                    stub.SetEligibility(pb.SetEligibilityRequest(node="n1", eligibility="asleep")),
                    "invalid_request",
                ),
                (
                    stub.SetEligibility(pb.SetEligibilityRequest(node="n8", eligibility="ready")),
                    "node_not_found",
                ),
                (stub.SetLabels(pb.SetLabelsRequest(node="n1", set={"": "a"})), "invalid_request"),
                (stub.ForgetNode(pb.ForgetNodeRequest(node="n8")), "node_not_found"),
            ):
                assert (await failure_of(call))[1]["raftd-error"] == wanted

    run(scenario())


def test_settings_are_told_with_their_limits_and_changed_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        admin, _ = service(tmp_path)
        host = make_host(tmp_path, admin=admin)
        async with serving(host), channel_to(host.address) as channel:
            stub = AdminStub(channel)
            told = {
                setting.name: setting
                for setting in (await stub.GetSettings(pb.GetSettingsRequest())).settings
            }
            assert list(told) == [field.name for field in fields(Settings)]
            queue = told["max_queue"]
            assert (queue.value, queue.default_value, queue.least) == (1_000_000, 1_000_000, 1)
            changed = await stub.SetSettings(pb.SetSettingsRequest(changes={"max_queue": 7, "placement": 2}))
            now = {setting.name: setting.value for setting in changed.settings}
            assert (now["max_queue"], now["placement"]) == (7, 2)
            for changes in ({}, {"max_queue": 8, "nonsense": 1}, {"max_queue": 0}):
                refused = await failure_of(stub.SetSettings(pb.SetSettingsRequest(changes=changes)))
                assert refused[0] is grpc.StatusCode.INVALID_ARGUMENT
            settings = (await stub.GetSettings(pb.GetSettingsRequest())).settings
            assert {setting.name: setting.value for setting in settings} == now

    run(scenario())


def a_leader_and_a_follower(path: Path) -> tuple[Host, Control, Host, Control]:
    controls = Control(), Control()

    def made(number: int, control: Control) -> Host:
        local = LocalNode(CLUSTER, number, f"n{number}", "")
        return make_host(path, number, make_admin=lambda forwarder: admin_of(path, local, control, forwarder))

    leader, follower = made(1, controls[0]), made(2, controls[1])
    leader.node.follow(1, leads=True)
    follower.node.follow(1)
    return leader, controls[0], follower, controls[1]


@pytest.mark.parametrize("change", CHANGES)
def test_a_follower_has_the_leader_make_a_change_once(tmp_path: Path, change: str) -> None:
    async def scenario() -> None:
        leader, on_leader, follower, on_follower = a_leader_and_a_follower(tmp_path)
        async with serving(leader, follower), channel_to(follower.address) as channel:
            assert await CHANGES[change](AdminStub(channel))
            assert [asked[0] for asked in on_leader.asked] == [change]
            assert not on_follower.asked

    run(scenario())


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answer_is_lost_is_not_made_again(tmp_path: Path, change: str) -> None:
    async def scenario() -> None:
        leader, on_leader, follower, _ = a_leader_and_a_follower(tmp_path)
        async with serving(leader, follower), channel_to(follower.address) as channel:
            leader.faults.change([("n1", "n2")], [], heal=False)
            code, trailing = await failure_of(CHANGES[change](AdminStub(channel)))
            assert (code, trailing["raftd-error"]) == (grpc.StatusCode.ABORTED, "outcome_unknown")
            assert "request id" not in trailing["raftd-try"], "a change has none"
            assert [asked[0] for asked in on_leader.asked] == [change]

    run(scenario())


def test_a_change_is_passed_on_by_one_hop_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        leader, on_leader, follower, _ = a_leader_and_a_follower(tmp_path)
        async with serving(leader, follower), channel_to(follower.address) as channel:
            asked = AdminStub(channel).RemoveMember(
                pb.RemoveMemberRequest(name="n3"), metadata=((FORWARDED_KEY, "n3"),), timeout=20
            )
            assert (await failure_of(asked))[1]["raftd-error"] == "not_leader"
            assert not on_leader.asked

    run(scenario())


def test_the_leaders_refusal_of_a_change_reaches_who_asked_a_follower(tmp_path: Path) -> None:
    async def scenario() -> None:
        leader, _, follower, _ = a_leader_and_a_follower(tmp_path)
        async with serving(leader, follower), channel_to(follower.address) as channel:
            asked = AdminStub(channel).RemoveMember(pb.RemoveMemberRequest(name="n9"), timeout=20)
            code, trailing = await failure_of(asked)
            assert (code, trailing["raftd-error"]) == (grpc.StatusCode.NOT_FOUND, "node_not_found")

    run(scenario())


def test_a_snapshot_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        leader, on_leader, follower, on_follower = a_leader_and_a_follower(tmp_path)
        async with serving(leader, follower), channel_to(follower.address) as channel:
            await AdminStub(channel).TakeSnapshot(pb.TakeSnapshotRequest(), timeout=20)
            assert (on_leader.snapshots_count, on_follower.snapshots_count) == (0, 1)

    run(scenario())
