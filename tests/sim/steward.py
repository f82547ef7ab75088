"""Somebody who says what nodes may take, how they are labelled and how the scheduler is set.

What may live here: such words, at random while there are faults, and those by which every task can run at last.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, cast

from raftd.errors import RaftdError
from raftd.scheduler.commands import Command, SetEligibility, SetLabels, SetSettings
from raftd.scheduler.model import Eligibility, Health, Node, Placement
from raftd.scheduler.state import State
from tests.sim.loop import sleep
from tests.sim.network import Host

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.world import World

LABELS = ("disk", "zone")
"""A node has each with 0 or 1; tasks require 1."""
TIMEOUT_S = 2.0


def own_labels(seed: int, store_id: int) -> dict[str, str]:
    """That a node brings itself."""
    random = Random(f"{seed}/labels/{store_id}")
    return {name: random.choice("01") for name in LABELS}


class Steward:
    """The steward of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"{world.plan.seed}/steward")

    async def run(self, until_s: float) -> None:
        """Say something now and then until then."""
        while self._world.plan.words_every_s:
            await sleep(self._random.expovariate(1 / self._world.plan.words_every_s))
            if self._world.loop.time() >= until_s:
                return
            state = self._state()
            if state is not None and state.nodes:
                await self._say((self._something(state),))

    async def release(self) -> None:
        """Have every node take everything, until the run is over."""
        while not self._world.over:
            state = self._state()
            if state is not None:
                words = [word for node in state.nodes.values() for word in self._releasing(state, node)]
                if words:
                    await self._say(tuple(words))
            await sleep(0.5)

    def _something(self, state: State) -> Command:
        random = self._random
        name = random.choice(sorted(state.nodes))
        what = random.randrange(10)
        if what < 3:
            return SetEligibility(name, Eligibility.READY)
        if what < 4:
            return SetEligibility(name, Eligibility.CORDONED)
        if what < 6:
            deadline_ms = random.choice((0, 1, state.cluster_time_ms + random.choice((50, 500, 2_000))))
            return SetEligibility(name, Eligibility.DRAINING, deadline_ms)
        if what < 8:
            label = random.choice(LABELS)
            if random.random() < 0.3:
                return SetLabels(name, (), (label,))
            return SetLabels(name, ((label, random.choice("01")),))
        changes = (
            ("placement", random.choice((Placement.SPREAD, Placement.BINPACK))),
            ("ageing_ms", random.choice((0, 1_000, 300_000))),
            ("reserve_depth", random.choice((0, 1, 2, 8))),
            ("max_dependencies", random.choice((3, 1_000))),
        )
        chosen = random.sample(changes, random.choice((1, 2)))
        if random.random() < 0.25:
            # One of them cannot be: none of them may be.
            chosen.append(("max_graph", 0))
        return SetSettings(tuple((setting, int(value)) for setting, value in chosen))

    def _releasing(self, state: State, node: Node) -> list[Command]:
        if node.health is not Health.UP or node.store_id in state.removed_stores:
            return []
        words: list[Command] = []
        if node.eligibility is not Eligibility.READY:
            words.append(SetEligibility(node.name, Eligibility.READY))
        wanted = dict.fromkeys(LABELS, "1")
        if wanted != {name: dict(node.all_labels).get(name) for name in LABELS}:
            words.append(SetLabels(node.name, tuple(sorted(wanted.items()))))
        return words

    def _state(self) -> State | None:
        """What is known where it is known best."""
        lives = self._world.lives
        return max(lives, key=lambda life: life.state.applied_index).state if lives else None

    async def _say(self, words: tuple[Command, ...]) -> None:
        """To whoever seems to lead; what becomes of it is the ledger's to see."""
        leaders = [life.store_id for life in self._world.lives if life.node.leads]
        if not leaders:
            return

        async def work(host: Host) -> object:
            return await cast("Life", host).node.propose(words, timeout=TIMEOUT_S)

        try:
            await self._world.network.call(self._random.choice(leaders), work, TIMEOUT_S + 1)
        except RaftdError as error:
            self._world.trace.say(f"the steward hears {error.code}")
