"""Somebody who lets machines in and out of the cluster, has them take over and take snapshots.

What may live here: what an operator asks for, of whoever leads. What was not answered is looked up, not assumed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, cast

from raftd.errors import RaftdError
from raftd.scheduler.model import MemberRecord
from tests.sim.network import Host

if TYPE_CHECKING:
    from tests.sim.machine import Life, Machine
    from tests.sim.world import World

MOST_MACHINES = 9
"""Ever, in one run."""
MOST_VOTERS = 5
CHANGE_S = 4.0


class Operator:
    """The operator of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"{world.plan.seed}/operator")
        self._busy = False
        self._waiting: list[Machine] = []
        """Machines that run and are not let in yet."""

    async def change_members(self) -> None:
        """Add, replace or remove somebody, unless the last change is still under way."""
        if self._busy:
            return
        self._busy = True
        try:
            await self._change()
        finally:
            self._busy = False

    async def transfer(self) -> None:
        """Have somebody take over."""
        to = self._random.choice(("", *(member.name for member in self._members())))
        if await self._ask(lambda life: life.membership.transfer(to, timeout=CHANGE_S)):
            self._world.trace.count("leadership transferred")

    def snapshot(self) -> None:
        """Have somebody take a snapshot."""
        lives = self._world.lives
        if lives:
            life = self._random.choice(lives)
            life.process.start(lambda: _take(life))

    def retire_strangers(self) -> None:
        """Whoever is not a member is switched off, on the word of one that remains."""
        remaining = self._remaining()
        known = {member.store_id for member in _newest(remaining).state.members} if remaining else set()
        for machine in self._world.machines:
            if known and machine.store_id not in known:
                machine.retire()

    async def _change(self) -> None:
        random, members = self._random, self._members()
        voters = [member for member in members if member.voter]
        what = random.choice(("add", "add", "replace", "remove", "promote"))
        if what == "remove" and len(voters) > 1:
            await self._remove(random.choice(members))
        elif what == "promote":
            learners = [member.name for member in members if not member.voter]
            if learners:
                name = random.choice(learners)
                await self._ask(lambda life: life.membership.promote(name, timeout=CHANGE_S))
        elif what == "replace" and voters:
            await self._add(random.choice(voters).name)
        elif len(voters) < MOST_VOTERS:
            await self._add("")
        gone = set().union(*(life.state.removed_stores for life in self._remaining()))
        for machine in self._world.machines:
            if machine.store_id in gone:
                self._world.later(0.5 + random.random() * 3, machine.retire)

    async def _add(self, replaces: str) -> None:
        world = self._world
        if not self._waiting and len(world.machines) < MOST_MACHINES:
            self._waiting.append(world.add_machine())
        if not self._waiting:
            return
        machine = self._waiting[0]
        machine.start()
        learner = self._random.random() < 0.2
        added = await self._ask(
            lambda life: life.membership.add(
                machine.name,
                machine.store_id,
                f"{machine.name}:1",
                learner=learner,
                replaces=replaces,
                timeout=CHANGE_S,
            )
        )
        if added or any(member.store_id == machine.store_id for member in self._members()):
            world.trace.count("member added")
            self._waiting.remove(machine)

    async def _remove(self, member: MemberRecord) -> None:
        led = any(life.node.leads and life.store_id == member.store_id for life in self._world.lives)
        if await self._ask(lambda life: life.membership.remove(member.name, timeout=CHANGE_S)):
            self._world.trace.count("leader removed" if led else "member removed")

    async def _ask(self, what: Callable[[Life], Awaitable[object]]) -> bool:
        """Ask whoever seems to lead; whether it was done, as far as this one knows."""
        leaders = [life.store_id for life in self._world.lives if life.node.leads]
        if not leaders:
            return False

        async def work(host: Host) -> object:
            return await what(cast("Life", host))

        try:
            await self._world.network.call(self._random.choice(leaders), work, CHANGE_S + 1)
        except RaftdError as error:
            self._world.trace.say(f"the operator hears {error.code}: {error.message}")
            return False
        return True

    def _members(self) -> tuple[MemberRecord, ...]:
        lives = self._world.lives
        return _newest(lives).state.members if lives else ()

    def _remaining(self) -> list[Life]:
        """Those that have not heard that they are removed. Who is, is the first to know, and may be the only one that
        can tell the others that it is committed (docs/decisions/0009): its own word is no reason to switch it off."""
        return [life for life in self._world.lives if life.store_id not in life.state.removed_stores]


def _newest(lives: Sequence[Life]) -> Life:
    return max(lives, key=lambda life: life.state.applied_index)


async def _take(life: Life) -> None:
    try:
        await life.snapshots.take_snapshot()
    except RaftdError as error:
        life.world.trace.say(f"{life.name} takes no snapshot: {error.code}")
