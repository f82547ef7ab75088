"""What an operator asks through `Client`: each method is that of `AsyncClient` of the same name.

What may live here: one blocking method per coroutine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from raftctl.client import nodes as n
from raftctl.client.async_client import AsyncClient

T = TypeVar("T")


class SyncOperatorCalls(ABC):
    """The operator's part of a client."""

    _client: AsyncClient

    @abstractmethod
    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it on the client's loop, and waits for it."""

    def node_info(self, node: str, *, timeout_s: float | None = None) -> n.NodeInfo:
        """See `AsyncClient.node_info`."""
        return self._run(self._client.node_info(node, timeout_s=timeout_s))

    def node_infos(self, *, timeout_s: float = 1.0) -> dict[str, n.NodeInfo]:
        """See `AsyncClient.node_infos`."""
        return self._run(self._client.node_infos(timeout_s=timeout_s))

    def members(self, *, timeout_s: float | None = None) -> n.Membership:
        """See `AsyncClient.members`."""
        return self._run(self._client.members(timeout_s=timeout_s))

    def add_member(
        self,
        name: str,
        store_id: str,
        address: str,
        *,
        learner: bool = False,
        replaces: str = "",
        timeout_s: float | None = None,
    ) -> int:
        """See `AsyncClient.add_member`."""
        return self._run(
            self._client.add_member(
                name, store_id, address, learner=learner, replaces=replaces, timeout_s=timeout_s
            )
        )

    def promote_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """See `AsyncClient.promote_member`."""
        return self._run(self._client.promote_member(name, timeout_s=timeout_s))

    def remove_member(self, name: str, *, timeout_s: float | None = None) -> int:
        """See `AsyncClient.remove_member`."""
        return self._run(self._client.remove_member(name, timeout_s=timeout_s))

    def transfer_leadership(self, target: str = "", *, timeout_s: float | None = None) -> n.Leadership:
        """See `AsyncClient.transfer_leadership`."""
        return self._run(self._client.transfer_leadership(target, timeout_s=timeout_s))

    def take_snapshot(self, node: str, *, timeout_s: float | None = None) -> n.SnapshotTaken:
        """See `AsyncClient.take_snapshot`."""
        return self._run(self._client.take_snapshot(node, timeout_s=timeout_s))

    def everybody(self, *, timeout_s: float = 1.0) -> tuple[dict[str, n.NodeInfo], tuple[str, ...]]:
        """See `AsyncClient.everybody`."""
        return self._run(self._client.everybody(timeout_s=timeout_s))

    def faults(self, node: str, *, timeout_s: float | None = None) -> n.Faults:
        """See `AsyncClient.faults`."""
        return self._run(self._client.faults(node, timeout_s=timeout_s))

    def set_faults(
        self,
        node: str,
        *,
        add: Iterable[n.Cut] = (),
        remove: Iterable[n.Cut] = (),
        heal: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[n.Cut, ...]:
        """See `AsyncClient.set_faults`."""
        return self._run(
            self._client.set_faults(node, add=add, remove=remove, heal=heal, timeout_s=timeout_s)
        )

    def set_eligibility(
        self, node: str, eligibility: str, *, deadline_ms: int = 0, timeout_s: float | None = None
    ) -> int:
        """See `AsyncClient.set_eligibility`."""
        return self._run(
            self._client.set_eligibility(node, eligibility, deadline_ms=deadline_ms, timeout_s=timeout_s)
        )

    def set_labels(
        self,
        node: str,
        *,
        set_: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, str]:
        """See `AsyncClient.set_labels`."""
        return self._run(self._client.set_labels(node, set_=set_, remove=remove, timeout_s=timeout_s))

    def forget_node(self, node: str, *, timeout_s: float | None = None) -> None:
        """See `AsyncClient.forget_node`."""
        self._run(self._client.forget_node(node, timeout_s=timeout_s))

    def settings(self, *, timeout_s: float | None = None) -> tuple[n.Setting, ...]:
        """See `AsyncClient.settings`."""
        return self._run(self._client.settings(timeout_s=timeout_s))

    def set_settings(
        self, changes: Mapping[str, int], *, timeout_s: float | None = None
    ) -> tuple[n.Setting, ...]:
        """See `AsyncClient.set_settings`."""
        return self._run(self._client.set_settings(changes, timeout_s=timeout_s))
