"""A slot for tests: runs a kind in the calling process, without a node.

What may live here: what the authors of task kinds need for their own tests. Nothing of raftd itself uses it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from raftd.tasks.context import TaskCancelled, TaskContext, set_current_context
from raftd.tasks.registry import Result, TaskKind


class LocalSlot:
    """Runs kinds, and keeps what they say.

    Limits, output and processes of their own are left out: what is tested is the function and its check.

    Args:
        directory: for working directories and blobs; made if it is not there.
        stop_at: a stop reaches the task when its progress is that far; None: none does.

    Attributes:
        progressed: every progress, in order: fraction and message.
    """

    def __init__(self, directory: Path, *, stop_at: float | None = None) -> None:
        self.progressed: list[tuple[float, str]] = []
        self._directory = directory
        self._stop_at = stop_at
        self._runs = 0
        self._context: TaskContext | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        kind: TaskKind,
        *args: str,
        payload: bytes = b"",
        attempt: int = 1,
        fencing_token: str = "1.1",
        array_index: int | None = None,
    ) -> Result:
        """Checks the arguments, then runs the kind as a slot would; returns what it returns, raises what it raises.

        Raises:
            ValueError: the kind is a program, which only a node runs.
        """
        if kind.program is not None:
            raise ValueError(f"{kind.name} is a program: look at what kind.program(args) returns")
        kind.check(args)
        self._runs += 1
        context = self._context = TaskContext(
            self,
            task_id=f"t{self._runs}",
            attempt=attempt,
            fencing_token=fencing_token,
            array_index=array_index,
            payload=payload,
        )
        was = Path.cwd()
        set_current_context(context)
        try:
            if kind.workdir:
                os.chdir(context.workdir)
            return kind.run(context, args)
        finally:
            set_current_context(None)
            os.chdir(was)

    def blob(self, digest: str) -> bytes:
        """The bytes of a blob that a task or ``put`` has put."""
        return self.fetch_blob(digest).read_bytes()

    def put(self, data: bytes) -> str:
        """Puts a blob that a task shall find; its digest."""
        return self.store_blob(data)

    # --- what a context asks for (raftd.tasks.context.Link) ---------------------------------------------------------

    def progress(self, fraction: float, message: str) -> None:
        """Keeps it, and stops the task if it is time."""
        self.progressed.append((fraction, message))
        if self._stop_at is not None and fraction >= self._stop_at and self._context is not None:
            self._context.cancelled = True
            raise TaskCancelled("the attempt was stopped")

    def fetch_blob(self, digest: str) -> Path:
        """The file of a blob."""
        path = self._directory / f"{digest}.blob"
        if not path.is_file():
            raise OSError(f"blob {digest}: nobody has it")
        return path

    def store_blob(self, source: bytes | Path) -> str:
        """Keeps the bytes."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        (self._directory / f"{digest}.blob").write_bytes(data)
        return digest

    def make_workdir(self) -> Path:
        """A directory of this run's own; it stays, to be looked at."""
        made = self._directory / f"run-{self._runs}"
        made.mkdir()
        return made.absolute()
