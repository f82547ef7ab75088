"""What starts with the entry of its own submission, where a slot is free: a round less than placing it afterwards.

What may live here: the choice of the riders; policy, like all of the planner.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.scheduler.commands import Command, OccupyNew, Submit
from raftd.scheduler.indexes import TaskClass, class_of, task_of
from raftd.scheduler.placement import Ranking
from raftd.scheduler.planner import Observations, PlanningView


def ride(view: PlanningView, observations: Observations, batch: Sequence[Command]) -> tuple[OccupyNew, ...]:
    """The Occupys of new tasks that can go along: where there is room that nothing older waits for.

    Args:
        batch: the commands of the entry, in their order.
    """
    state, in_flight = view.state, view.in_flight
    if not state.indexes.free:
        return ()
    submits = [
        (-command.spec.priority, position, command)
        for position, command in enumerate(batch)
        if isinstance(command, Submit) and not command.after and not command.spec.delay_ms
    ]
    if not submits:
        return ()
    ranking = Ranking(state, in_flight.slots, {name for name, _ in in_flight.lost} | observations.silent)
    full = {wanted for wanted in state.indexes.queue if _waits(view, wanted)}
    # As a plan would: for the first of them in the queue that some node could run.
    heads = [(next(iter(state.indexes.queue[wanted])), wanted) for wanted in full if wanted[2] > 1]
    for key, wanted in sorted(heads):
        ranking.hold(wanted, task_of(key))
    riders: list[OccupyNew] = []
    for _, position, command in sorted(submits, key=lambda submit: submit[:2]):
        array, wanted = command.array, class_of(command.spec)
        for offset in range(1 if array is None else array.last_index - array.first_index + 1):
            place = None if wanted in full else ranking.take(wanted)
            if place is None:
                full.add(wanted)
                break
            riders.append(OccupyNew(position, offset, *place))
    return tuple(riders)


def _waits(view: PlanningView, wanted: TaskClass) -> bool:
    """Whether a task of this class is in the queue that nothing is on its way for."""
    return any(task_of(key) not in view.in_flight.tasks for key in view.state.indexes.queue[wanted])
