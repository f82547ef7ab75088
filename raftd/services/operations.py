"""What an operator says of nodes, and the replicated settings: requests into commands, and what came of them.

What may live here: the leader's side of five calls of the Admin service (``admin``), which takes them to the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Protocol, TypeVar

from raftd.errors import InvalidRequest, from_code
from raftd.node.clock import ClusterClock
from raftd.pb import admin_pb2 as pb
from raftd.scheduler.commands import Command, ForgetNode, SetEligibility, SetLabels, SetSettings
from raftd.scheduler.model import MAX_DURATION_MS, Eligibility, Settings
from raftd.scheduler.replies import NodeSet, Refused, Reply
from raftd.scheduler.settings import LIMITS
from raftd.scheduler.state import State

_ELIGIBILITY = {
    "ready": Eligibility.READY,
    "cordoned": Eligibility.CORDONED,
    "draining": Eligibility.DRAINING,
}


T = TypeVar("T")


class Consensus(Protocol):
    """The node (``raftd.node.node.Node``)."""

    async def propose(self, commands: Sequence[Command], *, timeout: float) -> tuple[Reply, ...]:
        """See ``Node.propose``."""

    async def read(self, read: Callable[[], T], *, timeout: float) -> T:
        """See ``Node.read``."""


class Operations:
    """Carries out what an operator asks for.

    Args:
        node: the loop.
        state: the applied state.
        cluster_clock: the cluster's time, from which a drain's deadline counts.
    """

    def __init__(self, node: Consensus, state: Callable[[], State], cluster_clock: ClusterClock) -> None:
        self._node = node
        self._state = state
        self._cluster_clock = cluster_clock

    async def set_eligibility(
        self, request: pb.SetEligibilityRequest, timeout: float
    ) -> pb.SetEligibilityResponse:
        """Cordon, drain or make ready."""
        eligibility = _ELIGIBILITY.get(request.eligibility)
        if eligibility is None:
            raise InvalidRequest(
                f"{request.eligibility!r} is no eligibility", try_=f"one of {', '.join(_ELIGIBILITY)}"
            )
        if request.deadline_ms > MAX_DURATION_MS:
            raise InvalidRequest("the deadline is more than ten years away", try_="0 waits for ever")
        deadline_ms = self._cluster_clock.now_ms() + request.deadline_ms if request.deadline_ms else 0
        reply = await self._do(SetEligibility(request.node, eligibility, deadline_ms), timeout)
        running = reply.running if isinstance(reply, NodeSet) else 0
        return pb.SetEligibilityResponse(index=self._index, running=running)

    async def set_labels(self, request: pb.SetLabelsRequest, timeout: float) -> pb.SetLabelsResponse:
        """Set labels, and take labels back."""
        labels = tuple(sorted(request.set.items()))
        await self._do(SetLabels(request.node, labels, tuple(sorted(request.remove))), timeout)
        # Another may have forgotten the node since.
        node = self._state().nodes.get(request.node)
        return pb.SetLabelsResponse(index=self._index, labels={} if node is None else dict(node.all_labels))

    async def forget_node(self, request: pb.ForgetNodeRequest, timeout: float) -> pb.ForgetNodeResponse:
        """Drop the record of a worker that will not come back."""
        await self._do(ForgetNode(request.node), timeout)
        return pb.ForgetNodeResponse(index=self._index)

    async def set_settings(self, request: pb.SetSettingsRequest, timeout: float) -> pb.SetSettingsResponse:
        """Change settings, all or nothing."""
        if not request.changes:
            raise InvalidRequest("no setting was named", try_=f"the settings are: {', '.join(LIMITS)}")
        await self._do(SetSettings(tuple(sorted(request.changes.items()))), timeout)
        return pb.SetSettingsResponse(index=self._index, settings=_settings(self._state().settings))

    async def settings(self, timeout: float) -> pb.GetSettingsResponse:
        """The settings in force, read linearizably."""
        return await self._node.read(
            lambda: pb.GetSettingsResponse(settings=_settings(self._state().settings)), timeout=timeout
        )

    @property
    def _index(self) -> int:
        """What was done is in the record at this index."""
        return self._state().applied_index

    async def _do(self, command: Command, timeout: float) -> Reply:
        (reply,) = await self._node.propose((command,), timeout=timeout)
        if isinstance(reply, Refused):
            raise from_code(reply.code, reply.message, reply.try_)
        return reply


def _settings(settings: Settings) -> list[pb.Setting]:
    defaults = Settings()
    return [
        pb.Setting(
            name=field.name,
            value=getattr(settings, field.name),
            default_value=getattr(defaults, field.name),
            least=LIMITS[field.name].least,
            most=LIMITS[field.name].most,
        )
        for field in fields(Settings)
    ]
