"""The faults: how each kind begins, and how it ends.

What may live here: one method a kind, and the timetable that calls them. Whatever a fault does to the world is undone
by ``calm``.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING

from raftd.raft.types import Role
from raftd.storage.segment import parse_segment_name
from tests.sim.loop import NOBODY, sleep
from tests.sim.network import Host
from tests.sim.plan import DATA

if TYPE_CHECKING:
    from tests.sim.machine import Life, Machine
    from tests.sim.world import World


class Faults:
    """Does to a world what its plan says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"{world.plan.seed}/faults")
        self._under_way: set[asyncio.Task[None]] = set()
        self._doomed: tuple[Life, int, Callable[[], None]] | None = None
        """A leader, how often it may still hear that another has its entries, and what happens then."""
        self._kinds: dict[str, Callable[[], None]] = {
            "blackout": self._blackout,
            "clock rate": self._clock_rate,
            "cut": self._cut,
            "damage": self._damage,
            "disk full": lambda: self._refuse({"write": errno.ENOSPC, "create": errno.ENOSPC}),
            "fsync": lambda: self._refuse({"sync": errno.EIO, "fsync_dir": errno.EIO}),
            "isolate leader": self._isolate_leader,
            "kill": lambda: self._kill(power=False),
            "members": lambda: self._begin(world.operator.change_members),
            "no room": self._no_room,
            "pause": self._pause,
            "power": lambda: self._kill(power=True),
            "replay": lambda: world.network.replay(self._random.choice((1, 10, 30))),
            "short reigns": self._end_long_reign,
            "slot": self._slot,
            "snapshot": world.operator.snapshot,
            "transfer": lambda: self._begin(world.operator.transfer),
            "slow disk": lambda: self._slow((20, 300), self._random.choice((0.5, 3.0))),
            "stalled disk": lambda: self._slow((2_500, 6_000), 1.0),
            "stop": self._stop,
            "wall jump": self._wall_jump,
        }
        """What happens at moments. The other kinds are conditions that last."""

    async def run(self, until_s: float) -> None:
        """Faults at random moments until then."""
        world, random = self._world, self._random
        self._conditions()
        kinds = [kind for kind in world.plan.faults if kind in self._kinds]
        if "short reigns" in world.plan.faults:
            world.checks.on_leader = self._end_reign
            world.network.on_acknowledged = self._heard
        while True:
            await sleep(random.expovariate(1 / world.plan.every_s))
            if world.loop.time() >= until_s:
                return
            if not kinds:
                continue
            kind = random.choice(kinds)
            world.trace.say(f"fault: {kind}")
            world.fault_count += 1
            self._kinds[kind]()

    def _begin(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._world.loop.create_task(work(), context=NOBODY.copy())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def calm(self) -> None:
        """Everything is as it should be from now on, and every node that can start does."""
        world = self._world
        world.checks.on_leader = lambda _: None
        self._doomed = None
        world.network.conditions.calm()
        world.network.heal()
        world.network.forget_old()
        for machine in world.machines:
            machine.slow_ms = (1, 4)
            machine.strike = None
            machine.set_disk_errno({})
            machine.disk.free_bytes = None
            machine.supervisor.late_s = 0
            if machine.life is not None and machine.life.process.paused:
                machine.life.process.resume()
            machine.start()

    def _conditions(self) -> None:
        conditions, faults, random = self._world.network.conditions, self._world.plan.faults, self._random
        # Drawn whether or not they are used, so that a plan with fewer kinds differs in nothing else.
        drop, duplicate, late, lose = (random.choice((10, 100)) for _ in range(4))
        conditions.drop = drop if "drop" in faults else 0
        conditions.duplicate = duplicate if "duplicate" in faults else 0
        conditions.reorder = "reorder" in faults
        conditions.late = late if "late" in faults else 0
        conditions.lose_answers = 2 * lose if "answers" in faults else 0
        if random.random() < 0.3:
            conditions.most_s = random.choice((0.02, 0.06))

    def _machine(self) -> Machine:
        return self._random.choice([machine for machine in self._world.machines if not machine.retired])

    def _victim(self) -> Machine:
        """Often the leader, for there it hurts."""
        leaders = [machine for machine in self._world.machines if self._leads(machine)]
        return self._random.choice(leaders) if leaders and self._random.random() < 0.5 else self._machine()

    @staticmethod
    def _leads(machine: Machine) -> bool:
        return machine.life is not None and machine.life.raw.state.role is Role.LEADER

    def _kill(self, *, power: bool) -> None:
        machine, silently = self._victim(), self._random.random() < 0.5
        back_s = self._random.choice((0.1, 0.5, 1.5, 4.0))

        def kill() -> None:
            if machine.up:
                self._world.trace.count("process killed")
            machine.kill(power=power, silently=silently)
            self._world.later(back_s, machine.start)

        if self._random.random() < 0.6:
            machine.strike = kill
        else:
            kill()

    def _blackout(self) -> None:
        self._world.trace.count("power lost everywhere")
        for machine in self._world.machines:
            machine.kill(power=True, silently=True)
            self._world.later(0.1 + self._random.random() * 1.5, machine.start)

    def _stop(self) -> None:
        machine = self._victim()
        machine.stop()
        self._world.later(self._random.choice((0.3, 2.0)), machine.start)

    def _pause(self) -> None:
        life = self._victim().life
        if life is None or life.process.paused:
            return
        self._world.trace.count("pause")
        life.process.pause()

        def resume() -> None:
            if life.process.paused:
                life.process.resume()

        self._world.later(self._random.choice((0.05, 0.3, 1.0, 3.0, 8.0)), resume)

    def _cut(self) -> None:
        network, random = self._world.network, self._random
        voters = self._world.store_ids
        if random.random() < 0.35:
            one, other = random.choice(voters), random.choice(voters)
            if one != other:
                self._world.trace.count("cut one way")
                network.cut(one, other)
        else:
            self._world.trace.count("cut both ways")
            random.shuffle(voters)
            split = random.randrange(1, len(voters)) if len(voters) > 1 else 1
            for one in voters[:split]:
                for other in voters[split:]:
                    network.cut(one, other)
                    network.cut(other, one)
        self._heal_later()

    def _isolate_leader(self) -> None:
        leaders = [machine.store_id for machine in self._world.machines if self._leads(machine)]
        if not leaders:
            return
        self._isolate(self._random.choice(leaders), outgoing_only=self._random.random() < 0.3)
        self._heal_later()

    def _isolate(self, isolated: int, *, outgoing_only: bool) -> None:
        for other in self._world.store_ids:
            if other != isolated:
                self._world.network.cut(isolated, other)
                if not outgoing_only:
                    self._world.network.cut(other, isolated)
        self._world.trace.count("cut one way" if outgoing_only else "cut both ways")

    def _heal_later(self) -> None:
        if self._random.random() < 0.8:
            self._world.later(self._random.choice((0.3, 1.0, 3.0, 6.0)), self._world.network.heal)

    def _slow(self, slow_ms: tuple[int, int], for_s: float) -> None:
        machine = self._victim()
        machine.slow_ms = slow_ms

        def recover() -> None:
            machine.slow_ms = (1, 4)

        self._world.later(for_s, recover)

    def _refuse(self, errno_by_step: dict[str, int]) -> None:
        machine = self._victim()
        machine.set_disk_errno(errno_by_step)
        self._world.later(self._random.choice((0.1, 1.0)), lambda: machine.set_disk_errno({}))

    def _no_room(self) -> None:
        """Files cannot grow any more, for a while; what was preallocated can be written."""
        machine = self._victim()
        machine.disk.free_bytes = self._random.choice((0, 1_000, 6_000))

        def make_room() -> None:
            machine.disk.free_bytes = None

        self._world.later(self._random.choice((0.5, 2.0, 6.0)), make_room)

    def _damage(self) -> None:
        """A bit of the log flips on the medium while the node is down. Never so many that no majority is left."""
        world, machine = self._world, self._machine()
        hurt = sum(other.damaged for other in world.machines)
        if machine.damaged or hurt >= world.plan.nodes - world.plan.quorum:
            return
        machine.kill(power=True, silently=True)
        machine.damaged = True
        names = [name for name in machine.disk.listdir(f"{DATA}/log") if parse_segment_name(name)]
        path = f"{DATA}/log/{names[-1] if self._random.random() < 0.7 else names[0]}"
        used = len(machine.disk.read(path).rstrip(b"\0"))
        machine.disk.flip_bit(path, self._random.randrange(used * 8))
        world.later(0.5, machine.start)

    def _end_reign(self, life: Life) -> None:
        """A new leader is gone before it has done much: the way to logs that end differently (the paper, figure 8).

        At once, so that what it appends stays its own; or when it has just heard that another holds something; or at
        any time.
        """
        random = self._random
        when, how = random.choice(("at once", "heard", "later")), random.choice(("kill", "power", "isolate"))
        back_s, outgoing_only = random.choice((0.2, 0.6, 1.5, 3.0)), random.random() < 0.5

        def end() -> None:
            if life.machine.life is not life:
                return
            self._world.fault_count += 1
            self._world.trace.count("short reign")
            if how == "isolate":
                self._isolate(life.store_id, outgoing_only=outgoing_only)
                self._world.later(back_s, lambda: self._world.network.heal_one(life.store_id))
            else:
                life.machine.kill(power=how == "power", silently=True)
                self._world.later(back_s, life.machine.start)

        if random.random() < 0.25:
            return
        if when == "at once":
            # What it says is lost, what it writes is not; then perhaps it dies.
            self._isolate(life.store_id, outgoing_only=True)
            self._world.later(back_s, lambda: self._world.network.heal_one(life.store_id))
            self._world.later(0.03, end)
        elif when == "heard":
            self._doomed = (life, random.choice((1, 1, 2, 3)), end)
        else:
            self._world.later(random.random() ** 2 * 0.06, end)

    def _end_long_reign(self) -> None:
        """Without this, one that was left in peace would be the last one."""
        for machine in self._world.machines:
            if machine.life is not None and self._leads(machine):
                self._end_reign(machine.life)

    def _heard(self, host: Host) -> None:
        if self._doomed is None or self._doomed[0] is not host:
            return
        life, left, end = self._doomed
        self._doomed = (life, left - 1, end) if left > 1 else None
        if left == 1:
            self._world.later(0.0, end)

    def _slot(self) -> None:
        machine = self._machine()
        if machine.life is not None:
            machine.life.slots.crash_one()

    def _clock_rate(self) -> None:
        """Within the drift that leases allow for: ten thousandths between any two."""
        self._machine().clock.set_rate(1 + self._random.randrange(-4, 5) / 1000)

    def _wall_jump(self) -> None:
        self._world.trace.count("wall clock jumped")
        self._machine().clock.wall_off_ms += self._random.choice((-3_600_000, -5_000, 700, 5_000, 60_000))
