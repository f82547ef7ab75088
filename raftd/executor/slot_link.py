"""raftd's end of one slot process: its socket, and the pipes that carry its output.

What may live here: reading and writing those three on the event loop, nothing about attempts. A task that writes
without end must neither keep the loop busy, nor be blocked or killed for it: what is over the limit is read and
dropped, a pipe-full at a time with a pause between.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from raftd.executor.frames import Decoder, Head, encode
from raftd.executor.logs import STDERR, STDOUT, AttemptOutput
from raftd.executor.supervisor_client import SlotPipes

_CHUNK_BYTES = 65_536
_PIPE_BYTES = 1024 * 1024
_DROP_PAUSE_S = 0.02
_F_SETPIPE_SZ = 1031

OnFrame = Callable[["SlotLink", Head, bytes], None]
OnStray = Callable[["SlotLink", bytes], None]


class SlotLink:
    """The conversation with one slot process.

    Args:
        pipes: owned from now on.
        on_frame: gets every frame.
        on_stray: gets output that belongs to no attempt.
    """

    def __init__(self, pipes: SlotPipes, on_frame: OnFrame, on_stray: OnStray) -> None:
        self.slot = pipes.slot
        self.serial = pipes.serial
        self.pid = pipes.pid
        self.ready = False
        self.output: AttemptOutput | None = None
        self._on_frame = on_frame
        self._loop = asyncio.get_running_loop()
        self._sock = pipes.sock
        self._sock.setblocking(False)
        self._decoder = Decoder()
        self._unsent = bytearray()
        self._pumps = (
            _Pump(self, pipes.stdout, STDOUT, on_stray),
            _Pump(self, pipes.stderr, STDERR, on_stray),
        )
        self._closed = False
        self._loop.add_reader(self._sock, self._read)

    def send(self, head: Head, body: bytes = b"") -> None:
        """Sends a frame, now or when the socket takes it; to a slot that has died it is lost."""
        if self._closed:
            return
        data = encode(head, body)
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._sock, self._write)

    def drain_output(self) -> None:
        """Takes in all output that is written already."""
        for pump in self._pumps:
            pump.drain()

    def close(self) -> None:
        """Takes in what is there, frames and output, and closes; the process must have ended."""
        if not self._closed:
            self._read()
            self.drain_output()
            self._closed = True
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            for pump in self._pumps:
                pump.close()

    def _read(self) -> None:
        while not self._closed:
            try:
                data = self._sock.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # Dead or dying: the supervisor will say so once its whole tree is gone.
                self._loop.remove_reader(self._sock)
                return
            for head, body in self._decoder.feed(data):
                self._on_frame(self, head, body)
            if len(data) < _CHUNK_BYTES:
                return

    def _write(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._sock)


class _Pump:
    """Reads one output pipe."""

    def __init__(self, link: SlotLink, fd: int, stream: str, on_stray: OnStray) -> None:
        self._link = link
        self._fd = fd
        self._stream = stream
        self._on_stray = on_stray
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._enlarge()
        self._loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """Reads what is there, at most what a pipe can hold: whoever wrote it has come to an end."""
        left = _PIPE_BYTES
        while left > 0 and self._fd >= 0 and (size := self._read_chunk()):
            left -= size

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _enlarge(self) -> None:
        if sys.platform.startswith("linux"):
            import fcntl

            with suppress(
                OSError
            ):  # over the user's quota of pipe memory: then output comes in smaller pieces
                fcntl.fcntl(self._fd, _F_SETPIPE_SZ, _PIPE_BYTES)

    def _read(self) -> None:
        output = self._link.output
        if output is None or not output.over(self._stream):
            self._read_chunk()
            return
        self.drain()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._resume = self._loop.call_later(_DROP_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)

    def _read_chunk(self) -> int:
        """Reads once; returns how much there was."""
        try:
            data = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._loop.remove_reader(self._fd)  # every writer has ended
            return 0
        if self._link.output is not None:
            self._link.output.write(self._stream, data)
        else:
            self._on_stray(self._link, data)
        return len(data)
