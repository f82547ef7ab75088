"""Connections to the nodes, and the rule by which one of them is asked.

What may live here: the channels, what gRPC says about a failure turned into the SDK's errors, and `Router`,
which knows the addresses, remembers the leader, and asks again, elsewhere or later, until the caller's time
is up. A call is repeated as it is, request ids included: everything that goes through `Router.call` is safe to send
twice. What is not goes through `Router.call_once`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from grpc import aio

from raftctl.client import errors
from raftctl.endpoints import Endpoints
from raftd.pb.admin_pb2 import MembersRequest, NodeInfoRequest
from raftd.pb.admin_pb2_grpc import AdminStub
from raftd.pb.blobs_pb2_grpc import BlobsStub
from raftd.pb.scheduler_pb2_grpc import SchedulerStub

Req = TypeVar("Req")
Res = TypeVar("Res")

# Of one node in the first round, see `Patience`: to show that it is there, to answer, and between two rounds.
FIRST_PROBE_S = 0.25
LONGEST_PROBE_S = 2.0
FIRST_TRY_S = 2.0
LONGEST_TRY_S = 30.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name the timeout of an attempt to connect, and no pause: a busy or distant node needs its time.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    (
        "grpc.keepalive_time_ms",
        10_000,
    ),  # notices a paused node under a silent stream; nodes permit one in 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # a page of 1000 tasks with their inline results
    ("grpc.enable_http_proxy", 0),  # nodes are never behind a web proxy
    ("grpc.enable_retries", 0),  # the router repeats calls, and knows which
)

_BY_STATUS: dict[grpc.StatusCode, type[errors.ClientError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.NodeUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.NodeUnreachable,
    grpc.StatusCode.CANCELLED: errors.NodeUnreachable,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Refused,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
}

# After one of these it is certain that nothing has happened: the node says so, or it never reached a leader.
_NOTHING_HAPPENED = (
    errors.NoLeader,
    errors.NotLeader,
    errors.ShuttingDown,
    errors.PeerUnreachable,
)
MEET_S = 1.0  # for the answer to who there is, which nobody waits for

MEET_EVERY_S = 5.0
"""A client that lives so long asks who has come: one leader may lead until it is removed, and never name another."""

# Which error tells most when every node has been asked in vain.
_TELLING = (errors.NoQuorum, errors.OutcomeUnknown, errors.NoLeader, errors.NotLeader)


@dataclass(frozen=True, slots=True)
class Stubs:
    """One node's services on one channel."""

    address: str
    channel: aio.Channel
    scheduler: SchedulerStub
    admin: AdminStub
    blobs: BlobsStub


def leader_hint(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, str] | None:
    """``(name, address)`` from the trailing metadata of an answer, if it says who leads."""
    for key, value in metadata or ():
        if key == "raftd-leader" and isinstance(value, str):
            name, _, address = value.partition("=")
            if address:
                return name, address
    return None


def error_of(error: aio.AioRpcError, address: str) -> errors.ClientError:
    """What a failed call means: by the node's own code if it sent one, else by gRPC's status."""
    metadata = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    details = error.details() or error.code().name.lower()
    if "raftd-error" in metadata:
        return errors.from_code(metadata["raftd-error"], details, metadata.get("raftd-try", ""))
    kind = _BY_STATUS.get(error.code())
    if kind is errors.NodeUnreachable:
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return kind(f"{address} {'does not answer in time' if late else 'cannot be reached'}")
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # Not a refusal of the cluster, which has a code of its own: gRPC did not take the message in, or give it out.
        return errors.PayloadTooLarge(f"{address} takes no message of this size: {details}")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return errors.Refused(f"{address} does not know this call", "the same version of raftctl and raftd")
    return (kind or errors.ClientError)(f"{address}: {details}")


@dataclass(slots=True)
class Patience:
    """What a node is given in this round. Doubles with every round, so that a slow cluster is still given time."""

    probe_s: float = field(default_factory=lambda: FIRST_PROBE_S)
    try_s: float = field(default_factory=lambda: FIRST_TRY_S)
    pause_s: float = field(default_factory=lambda: FIRST_PAUSE_S)

    async def pause(self, remaining_s: float) -> None:
        """Ends a round in which nobody gave an answer to keep."""
        await asyncio.sleep(min(max(remaining_s, 0.0), self.pause_s * random.uniform(0.5, 1.0)))
        self.probe_s = min(self.probe_s * 2, LONGEST_PROBE_S)
        self.try_s = min(self.try_s * 2, LONGEST_TRY_S)
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)


class Router:
    """Knows a cluster's nodes and finds one that answers.

    Not safe for use from several event loops; made and closed inside the loop that uses it.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._names: dict[str, str] = {address: name for name, address in endpoints.addresses}
        self._metadata = (("authorization", f"Bearer {endpoints.token}"),) if endpoints.token else ()
        self._stubs: dict[str, Stubs] = {}
        self._leader: str | None = None  # an address: where the next call goes first
        self._met_stranger = False  # a leader that was not known: there may be more that are not
        self._met_at_s = time.monotonic()  # when it was last asked who there is
        self._failed: dict[str, int] = {}  # failures in a row: who has more of them is asked later
        self._heard: set[str] = set()  # who has answered, and has not failed to since

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return self._metadata

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that is known, in the order they were learnt."""
        return tuple(self._names)

    @property
    def leader_address(self) -> str | None:
        """Who answered or was named last; the leader, as far as is known."""
        return self._leader

    def name_of(self, address: str) -> str:
        """The node's name, or its address where the name is not known."""
        return self._names.get(address) or address

    def address_of(self, name: str) -> str | None:
        """The address of a node by its name."""
        return next((address for address, known in self._names.items() if known == name), None)

    def learn(self, name: str, address: str) -> None:
        """Remembers a node that another one spoke of."""
        if address and (address not in self._names or (name and not self._names[address])):
            self._names[address] = name

    def lead_by(self, name: str, address: str) -> None:
        """Remembers who leads."""
        self._met_stranger = self._met_stranger or address not in self._names
        self.learn(name, address)
        self._leader = address

    def stubs(self, address: str) -> Stubs:
        """The services of one node; connects when first used."""
        found = self._stubs.get(address)
        if found is None:
            channel = aio.insecure_channel(address, options=_OPTIONS)
            found = Stubs(address, channel, SchedulerStub(channel), AdminStub(channel), BlobsStub(channel))
            self._stubs[address] = found
        return found

    def order(self) -> list[str]:
        """Whom to ask, first to last: the leader, then those that answer, then those that did not."""
        return sorted(
            self._names, key=lambda address: (self._failed.get(address, 0), address != self._leader)
        )

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(*(stubs.channel.close() for stubs in self._stubs.values()))
        self._stubs.clear()

    def note_failure(self, address: str, error: aio.AioRpcError) -> errors.ClientError:
        """Learns from a failed call: who leads, who does not answer. Returns what the failure means."""
        found = error_of(error, self.name_of(address))
        hint = leader_hint(error.trailing_metadata())
        if isinstance(found, errors.NodeUnreachable):
            self._failed[address] = self._failed.get(address, 0) + 1
            self._heard.discard(address)
        if hint is not None:
            self.lead_by(*hint)
        elif self._leader == address and found.retryable:
            self._leader = None
        return found

    def note_success(self, address: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Learns from an answered call: this node is up, and may have said who leads."""
        self._failed.pop(address, None)
        self._heard.add(address)
        hint = leader_hint(metadata)
        if hint is not None:
            self.lead_by(*hint)
        elif self._leader is None and address in self._names:
            self._leader = address

    async def ask(
        self,
        address: str,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float,
    ) -> Res:
        """Asks this node, once.

        Raises:
            ClientError: whatever it, or the connection to it, said.
        """
        call = pick(self.stubs(address))(request, timeout=timeout_s, metadata=self._metadata)
        try:
            response = await call
            self.note_success(address, await call.trailing_metadata())
        except aio.AioRpcError as error:
            raise self.note_failure(address, error) from error
        return response

    async def reach(self, address: str, timeout_s: float, *, again: bool = False) -> None:
        """Sees that a node is there, where it was not heard yet, or `again`: a paused one lets everybody connect, and
        would take all the time that a request is given.

        Raises:
            ClientError: what it, or the connection to it, said.
        """
        if again or (address not in self._heard and len(self._names) > 1):
            await self.ask(address, lambda s: s.admin.NodeInfo, NodeInfoRequest(), timeout_s)

    async def call(
        self,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float,
    ) -> Res:
        """Asks until a node answers, in the order of `order`.

        Raises:
            ClientError: an answer that no other node would change, or, when `timeout_s` has passed, the most
            telling of
                the failures.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        telling: errors.ClientError | None = None
        patience = Patience()
        while True:
            asked: set[str] = set()
            while (address := next((one for one in self.order() if one not in asked), None)) is not None:
                asked.add(address)
                if loop.time() >= deadline:
                    break
                try:
                    await self.reach(address, min(deadline - loop.time(), patience.probe_s))
                    response = await self.ask(
                        address, pick, request, min(deadline - loop.time(), patience.try_s)
                    )
                    await self._meet(address, min(deadline - loop.time(), MEET_S))
                    return response
                except errors.ClientError as error:
                    if not error.retryable:
                        raise
                    telling = more_telling(telling, error)
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                raise telling or errors.NodeUnreachable("no node answered in time")
            await patience.pause(remaining_s)

    async def _meet(self, address: str, timeout_s: float) -> None:
        """After a leader that was not known yet, and every few seconds: who else has come? Those that are known may all
        be gone one day."""
        is_due = self._met_stranger or time.monotonic() - self._met_at_s >= MEET_EVERY_S
        if not is_due or timeout_s <= 0:
            return
        self._met_stranger, self._met_at_s = False, time.monotonic()
        call = self.stubs(address).admin.Members(MembersRequest(), timeout=timeout_s, metadata=self._metadata)
        # An answer that does not come is no reason to fail a call that has one: it is asked again in a while.
        with contextlib.suppress(aio.AioRpcError):
            for member in (await call).members:
                self.learn(member.name, member.address)

    async def call_once(
        self,
        pick: Callable[[Stubs], aio.UnaryUnaryMultiCallable[Req, Res]],
        request: Req,
        timeout_s: float,
    ) -> Res:
        """Asks a node that answers; asks again only as long as it is certain that nothing has happened yet.

        Raises:
            OutcomeUnknown: the node was lost after it had been asked, or said so itself.
            ClientError: any other answer, or, when `timeout_s` has passed, why nobody took the request.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        failure: errors.ClientError | None = None
        patience = Patience()
        while True:
            for address in self.order():
                remaining_s = deadline - loop.time()
                if remaining_s <= 0:
                    break
                try:
                    # A node that hangs must not get the request: it might take it long after the caller has gone.
                    await self.reach(address, min(remaining_s, patience.probe_s), again=True)
                except errors.NodeUnreachable as error:
                    failure = more_telling(failure, error)
                    continue
                try:
                    return await self.ask(address, pick, request, deadline - loop.time())
                except errors.NodeUnreachable as error:
                    raise errors.OutcomeUnknown(
                        f"{self.name_of(address)} was lost: {error.message}"
                    ) from error
                except errors.ChangePending as error:
                    failure = error
                    break  # every node would say the same
                except _NOTHING_HAPPENED as error:
                    failure = more_telling(failure, error)
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                raise failure or errors.NodeUnreachable("no node answered in time")
            await patience.pause(remaining_s)


def more_telling(before: errors.ClientError | None, now: errors.ClientError) -> errors.ClientError:
    """Which of two failures to report: one that says something about the cluster rather than about one node."""
    if before is None:
        return now

    def rank(error: errors.ClientError) -> int:
        if isinstance(error, _TELLING):
            return _TELLING.index(type(error))
        return len(_TELLING) + isinstance(error, errors.NodeUnreachable)

    return now if rank(now) <= rank(before) else before
