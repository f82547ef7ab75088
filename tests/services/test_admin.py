"""The Admin service: what a node says of itself, and its cuts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from raftd.node.members import Members
from raftd.pb import admin_pb2 as pb
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.raft.ready import ProgressStatus, Status
from raftd.raft.types import Configuration, Role
from raftd.scheduler.model import MemberRecord, Standing
from raftd.scheduler.state import State
from raftd.services.admin import AdminService
from raftd.transport.base import LocalNode
from raftd.transport.faults import FaultTable
from tests.services.hosts import CLUSTER, channel_to, failure_of, make_host, run, serving

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

    def status(self) -> Status:
        return self.now


def service(path: Path, *, enabled: bool = True) -> tuple[AdminService, Facts]:
    state = State()
    state.members = tuple(
        MemberRecord(f"n{number}", number, f"h:{number}", Standing.VOTER) for number in (1, 2, 3)
    )
    facts = Facts()
    return (
        AdminService(
            local=LOCAL,
            incarnation=4,
            address="h:1",
            started_at_ms=1_700_000_000_000,
            members=Members(lambda: state),
            facts=facts,
            faults=FaultTable("n1", path / "cuts.json", enabled),
        ),
        facts,
    )


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

            members = (await AdminStub(channel).Members(pb.MembersRequest())).members
            assert [(member.name, member.address, member.voter) for member in members] == [
                ("n1", "h:1", True),
                ("n2", "h:2", True),
                ("n3", "h:3", True),
            ]

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
