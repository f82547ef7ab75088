"""Task kinds: what one is, how one is declared, and how they are found.

What may live here: the ``@task`` decorator, the record that it makes, and the lookup through the entry-point
group ``raftd.tasks``. Light to import: servers use it for the checks at submit, slots to find what they run. The
built-in kinds are there even in a plain checkout, where no distribution, and so no entry point, is installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from raftd.errors import ConfigError, InvalidArguments, UnknownKind
from raftd.tasks.context import TaskContext

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "raftd.tasks"
_BUILTIN = "raftd.tasks.builtin"

Args: TypeAlias = tuple[str, ...]
Result: TypeAlias = bytes | str | None
Run: TypeAlias = Callable[[TaskContext, Args], Result]
Check: TypeAlias = Callable[[Sequence[str]], None]
ResultMode: TypeAlias = Literal["auto", "inline", "blob"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of task.

    Attributes:
        name: as in ``raftctl submit NAME``.
        run: does the work in a slot; its result is bytes, text (UTF-8) or nothing. Never called with ``program``.
        check: refuses arguments at submit, in the server: light, quick, raises ``InvalidArguments``.
        isolated: gets a process of its own under the slot; shares no interpreter with other attempts.
        result: ``auto``: inline up to the limit, else a blob; ``inline``: over the limit the attempt fails;
            ``blob``: always a blob.
        opt_in: offered only by nodes that were told to allow it.
        workdir: starts in a private working directory; others get one when they ask the context for it.
        program: turns the arguments into the argv that the slot executes; its stdin is the payload, and its
            result the end of what it wrote to stdout.
        summary: one line for people.
    """

    name: str
    run: Run
    check: Check
    isolated: bool = False
    result: ResultMode = "auto"
    opt_in: bool = False
    workdir: bool = True
    program: Callable[[Args], Sequence[str]] | None = None
    summary: str = ""

    def __call__(self, ctx: TaskContext, args: Args) -> Result:
        """Runs it, as the decorated function would."""
        return self.run(ctx, args)


def accept_any(args: Sequence[str]) -> None:
    """The check of a kind that declares none."""


def task(
    name: str,
    *,
    check: Check = accept_any,
    isolated: bool = False,
    result: ResultMode = "auto",
    opt_in: bool = False,
    workdir: bool = True,
    program: Callable[[Args], Sequence[str]] | None = None,
) -> Callable[[Run], TaskKind]:
    """Declares a task kind; the decorated name becomes a ``TaskKind`` that an entry point can name.

    Raises:
        ValueError: the name is not lower-case letters, digits and dashes.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"kind name {name!r}: use lower-case letters, digits and dashes, at most 63")

    def declare(run: Run) -> TaskKind:
        summary = (run.__doc__ or "").strip().partition("\n")[0]
        return TaskKind(name, run, check, isolated, result, opt_in, workdir, program, summary)

    return declare


@dataclass(frozen=True, slots=True)
class Registry:
    """The kinds that this installation has.

    Attributes:
        kinds: by name.
        broken: why an entry point is not used, by its name: it could not be loaded, or its name is taken.
    """

    kinds: Mapping[str, TaskKind]
    broken: Mapping[str, str] = field(default_factory=dict)

    def offered(self, allow: Iterable[str] = ()) -> tuple[str, ...]:
        """Names of the kinds that a node with this ``allow`` list offers, sorted."""
        allowed = set(allow)
        return tuple(sorted(name for name, kind in self.kinds.items() if not kind.opt_in or name in allowed))

    def check_allowed(self, allow: Iterable[str]) -> None:
        """Refuses a list of allowed kinds that names one which is not there, or needs no leave.

        Raises:
            ConfigError: it does.
        """
        known = sorted(name for name, kind in self.kinds.items() if kind.opt_in)
        for name in allow:
            if name not in known:
                why = f" (it cannot be loaded: {self.broken[name]})" if name in self.broken else ""
                raise ConfigError(
                    f"allow: {name!r} is not a kind that must be allowed{why}",
                    try_=" ".join(f"--allow {kind}" for kind in known),
                )

    def find(self, name: str) -> TaskKind:
        """The kind of this name.

        Raises:
            UnknownKind: there is none, or it is broken.
        """
        kind = self.kinds.get(name)
        if kind is not None:
            return kind
        why = f" (it cannot be loaded: {self.broken[name]})" if name in self.broken else ""
        raise UnknownKind(f"no task kind {name!r}{why}", try_=f"known kinds: {' '.join(sorted(self.kinds))}")

    def check(self, name: str, args: Sequence[str]) -> None:
        """The check at submit.

        Raises:
            UnknownKind: as for ``find``.
            InvalidArguments: the kind refuses these arguments.
        """
        kind = self.find(name)
        try:
            kind.check(tuple(args))
        except InvalidArguments:
            raise
        except Exception as error:  # a foreign check that fails must not take the server with it
            raise InvalidArguments(f"{name}: its check failed: {type(error).__name__}: {error}") from error


def load() -> Registry:
    """Loads every kind: the built-in ones, then those of installed distributions; built-in names cannot be taken."""
    # Not at the top: it costs a slot that needs no foreign kind milliseconds and megabytes.
    from importlib.metadata import entry_points

    kinds = dict(_builtin())
    broken: dict[str, str] = {}
    taken = {kind: f"{_BUILTIN}:{kind.replace('-', '_')}" for kind in kinds}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        owner = taken.setdefault(point.name, point.value)
        if point.name not in kinds:
            _load_into(point, kinds, broken)
        elif point.value != owner:
            broken[point.name] = f"the name is taken by {owner}; {point.value} is not used"
    return Registry(kinds, broken)


def find(name: str) -> TaskKind:
    """One kind, without loading more than is needed; for slots, whose start must be quick.

    Raises:
        UnknownKind: there is none of this name.
    """
    kinds = dict(_builtin())
    broken: dict[str, str] = {}
    if name not in kinds:
        # Not at the top: it costs a slot that needs no foreign kind milliseconds and megabytes.
        from importlib.metadata import entry_points

        for point in sorted(entry_points(group=GROUP, name=name), key=lambda point: point.value):
            if name not in kinds:
                _load_into(point, kinds, broken)
    return Registry(kinds, broken).find(name)


def _builtin() -> Mapping[str, TaskKind]:
    # Not at the top: the built-in kinds are declared with the decorator of this module.
    from raftd.tasks import builtin

    return builtin.KINDS


def _load_into(point: EntryPoint, kinds: dict[str, TaskKind], broken: dict[str, str]) -> None:
    try:
        kind = point.load()
    except (Exception, SystemExit) as error:  # whatever a foreign module does on import, the node must live
        broken[point.name] = f"{type(error).__name__}: {error}"
        return
    if not isinstance(kind, TaskKind):
        broken[point.name] = f"{point.value} is not declared with @task"
    elif kind.name != point.name:
        broken[point.name] = f"{point.value} is declared as {kind.name!r}"
    else:
        kinds[point.name] = kind
