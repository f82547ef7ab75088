"""What a slot tells of the end of an attempt that ran in it.

What may live here: from what a task returned or raised to the report and the bytes that go with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raftd.executor.frames import EndReport, RunRequest

MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Ending:
    """How it came out.

    Attributes:
        result: what the task returned.
        failure: why it failed, in one line; empty if it did not.
        brings: bytes that come with a failure.
        stopped: a stop had reached it.
    """

    result: Any
    failure: str
    brings: bytes
    stopped: bool


def report_of(ending: Ending, mode: str, request: RunRequest, run_dir: Path) -> tuple[EndReport, bytes]:
    """The report and its body; a large result becomes a file in ``run_dir``. ``mode`` is the kind's ``result``."""
    if ending.stopped:
        return EndReport(request.token, "stopped", reason=ending.failure, mode=mode), b""
    failed = EndReport(request.token, "failed", reason=ending.failure, mode=mode)
    if ending.failure:
        # A failure stays one, whatever is wrong with what it brings.
        if not 0 < len(ending.brings) <= request.result_limit_bytes:
            return failed, b""
        return _with_bytes(failed, ending.brings, False, request, run_dir)
    result = ending.result
    if result is None and mode != "blob":
        return EndReport(request.token, "succeeded", mode=mode), b""
    if isinstance(result, str):
        result = result.encode()
    if not isinstance(result, bytes | bytearray | memoryview):
        wanted = "bytes" if mode == "blob" else "bytes, str or None"
        return replace(
            failed, reason=f"TypeError: the task returned {type(result).__name__}, not {wanted}"
        ), b""
    data = bytes(result)
    if len(data) > request.result_limit_bytes:
        limit = request.result_limit_bytes
        return replace(failed, reason=f"the result has {len(data)} bytes, the limit is {limit}"), b""
    if len(data) > request.inline_bytes and mode == "inline":
        limit = request.inline_bytes
        return replace(
            failed, reason=f"the result has {len(data)} bytes, the limit of this kind is {limit}"
        ), b""
    return _with_bytes(replace(failed, outcome="succeeded"), data, mode == "blob", request, run_dir)


def _with_bytes(
    report: EndReport, data: bytes, as_blob: bool, request: RunRequest, run_dir: Path
) -> tuple[EndReport, bytes]:
    if len(data) <= request.inline_bytes and not as_blob:
        return replace(report, result="inline"), data
    path = run_dir / f"{request.token}.result"
    path.write_bytes(data)
    return replace(report, result="file", path=str(path)), b""


def reason_of(error: BaseException, more: str = "") -> str:
    """One line about an error, of a length that fits a record."""
    return line(f"{type(error).__name__}: {error}", more)


def line(text: str, more: str = "") -> str:
    """One line of that length; ``more`` is not cut."""
    text = " ".join(text.split()).removesuffix(":")
    room = MAX_REASON - len(more) - 2 if more else MAX_REASON
    text = text if len(text) <= room else text[: room - 3] + "..."
    return (f"{text}: {more}" if more else text).encode("utf-8", "replace").decode()
