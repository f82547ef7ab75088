"""From what was typed, or lies in a file, to submissions.

What may live here: the words of dependencies, ranges, durations and files; no cluster is asked here. A file (``submit
--file``) holds one submission as a JSON object, several as a list or one on each line, or a graph: an object with
``tasks``, each with an ``id`` that others name in their ``after``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raftctl.client.models import (
    ArrayRange,
    Condition,
    Dependency,
    Graph,
    GraphTask,
    Submission,
)
from raftctl.durations import parse_duration_ms
from raftctl.errors import UsageError

_ARRAY = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
_BACKOFF = re.compile(r"exp:([^.]+)\.\.(.+)")
_ID = re.compile(r"[tj]\d+", re.ASCII)

_TEXTS = ("kind", "name", "request_id", "stdin")
_COUNTS = ("priority", "retries", "max_failures", "slots")
_DURATIONS = ("run_timeout", "queue_timeout", "delay")
_PAIRS = ("env", "require")
_KNOWN = frozenset((*_TEXTS, *_COUNTS, *_DURATIONS, *_PAIRS, "args", "backoff", "array", "after", "id"))


def pair(option: str, text: str) -> tuple[str, str]:
    """``K=V``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{option} {text!r} is not of the form K=V")
    return key, value


def payload(path: str | None) -> bytes:
    """The task's standard input: a file's bytes, or with ``-`` our own."""
    if path is None:
        return b""
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def array_range(text: str | None, max_failures: int) -> ArrayRange | None:
    """``0-63``, or ``7`` for one index."""
    if text is None:
        if max_failures:
            raise UsageError("--max-failures is for arrays", "--array 0-63 --max-failures 3")
        return None
    match = _ARRAY.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise UsageError(f"--array {text} names no indices", "--array 0-63")
    return ArrayRange(first, last, max_failures)


def backoff(text: str | None) -> tuple[int, int]:
    """``exp:1s..60s``: the first pause and the longest, in ms; zeros leave it to the cluster."""
    if text is None:
        return 0, 0
    match = _BACKOFF.fullmatch(text)
    if match is None:
        raise UsageError(f"--backoff {text} is not understood", "--backoff exp:1s..60s")
    first_ms, max_ms = parse_duration_ms(match[1]), parse_duration_ms(match[2])
    if not 0 < first_ms <= max_ms:
        raise UsageError(f"--backoff {text} ends before it begins", "--backoff exp:1s..60s")
    return first_ms, max_ms


def dependency(text: str) -> Dependency:
    """``t17``, ``j3``, ``t17:any``."""
    ident, condition = _split(text)
    if not _ID.fullmatch(ident):
        raise UsageError(f"--after {text}: that is no task and no job", "--after t17, --after j3:any")
    return Dependency(ident, condition)


def from_file(path: str) -> list[Submission] | Graph:
    """What a file (``-``: our standard input) asks for.

    Raises:
        UsageError: it is not JSON, or says something that no submission has.
    """
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    documents = _documents(text, path)
    if len(documents) == 1 and isinstance(documents[0], dict) and "tasks" in documents[0]:
        return _graph(documents[0])
    if len(documents) == 1 and isinstance(documents[0], list):
        documents = documents[0]
    if not documents:
        raise UsageError(f"{path} holds no submission")
    return [
        _submission(one, f"submission {number}", local=False) for number, one in enumerate(documents, start=1)
    ]


def _split(text: str) -> tuple[str, Condition]:
    ident, _, word = text.partition(":")
    try:
        return ident, Condition(word or "ok")
    except ValueError:
        raise UsageError(f"{text}: a dependency is ok or any, not {word!r}", "--after t17:any") from None


def _documents(text: str, path: str) -> list[Any]:
    """One value, or one on each line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            raise UsageError(
                f"{path} is no JSON: {whole.msg} in line {whole.lineno}",
                'a file holds {"kind": "sleep", "args": ["1"]}, a list of such, or one on each line',
            ) from None


def _graph(document: Mapping[str, Any]) -> Graph:
    unknown = document.keys() - {"tasks", "name", "max_failures", "request_id"}
    if unknown:
        raise UsageError(f"a graph has no {sorted(unknown)[0]!r}")
    tasks = document["tasks"]
    if not isinstance(tasks, list) or not tasks:
        raise UsageError("a graph's tasks are a list of at least one")
    places: dict[str, int] = {}
    for place, task in enumerate(tasks):
        ident = task.get("id") if isinstance(task, dict) else None
        if ident is not None and places.setdefault(str(ident), place) != place:
            raise UsageError(f"two tasks of the graph have the id {ident!r}")
    return Graph(
        tasks=tuple(_graph_task(task, f"task {place}", places) for place, task in enumerate(tasks)),
        name=_text(document, "name", "the graph"),
        max_failures=_count(document, "max_failures", "the graph"),
        request_id=_text(document, "request_id", "the graph"),
    )


def _graph_task(task: Any, where: str, places: Mapping[str, int]) -> GraphTask:
    submission = _submission(task, where, local=True)
    edges: list[tuple[int, Condition]] = []
    others: list[Dependency] = []
    for text in _list(task, "after", where):
        ident, condition = _split(str(text))
        if ident in places:
            edges.append((places[ident], condition))
        elif _ID.fullmatch(ident):
            others.append(Dependency(ident, condition))
        else:
            raise UsageError(f"{where} comes after {ident!r}, which is no task of the graph")
    return GraphTask(_with_after(submission, others), tuple(edges))


def _with_after(submission: Submission, others: Sequence[Dependency]) -> Submission:
    from dataclasses import replace

    return replace(submission, after=tuple(others))


def _submission(document: Any, where: str, *, local: bool) -> Submission:
    if not isinstance(document, dict):
        raise UsageError(f"{where} is no JSON object")
    unknown = document.keys() - _KNOWN
    if unknown:
        raise UsageError(f"{where} has no {sorted(unknown)[0]!r}", "known: " + ", ".join(sorted(_KNOWN)))
    if not document.get("kind"):
        raise UsageError(f"{where} names no kind", '"kind": "sleep"')
    words = {name: _text(document, name, where) for name in _TEXTS}
    counts = {name: _count(document, name, where) for name in _COUNTS}
    durations = {name: _duration(document, name, where) for name in _DURATIONS}
    first_ms, max_ms = backoff(_text(document, "backoff", where) or None)
    array = document.get("array")
    return Submission(
        kind=words["kind"],
        args=tuple(str(arg) for arg in _list(document, "args", where)),
        payload=words["stdin"].encode(),
        env=_pairs(document, "env", where),
        name=words["name"],
        priority=counts["priority"],
        retries=counts["retries"],
        backoff_first_ms=first_ms,
        backoff_max_ms=max_ms,
        run_timeout_ms=durations["run_timeout"],
        queue_timeout_ms=durations["queue_timeout"],
        delay_ms=durations["delay"],
        after=() if local else tuple(dependency(str(one)) for one in _list(document, "after", where)),
        require=_pairs(document, "require", where),
        slots=counts["slots"] or 1,
        array=array_range(None if array is None else str(array), counts["max_failures"]),
        request_id=words["request_id"],
    )


def _text(document: Mapping[str, Any], name: str, where: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise UsageError(f"{where}: {name} is text")
    return value


def _count(document: Mapping[str, Any], name: str, where: str) -> int:
    value = document.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{where}: {name} is a whole number")
    return value


def _duration(document: Mapping[str, Any], name: str, where: str) -> int:
    text = _text(document, name, where)
    return parse_duration_ms(text) if text else 0


def _list(document: Mapping[str, Any], name: str, where: str) -> Iterable[Any]:
    value = document.get(name, ())
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise UsageError(f"{where}: {name} is a list")
    return value


def _pairs(document: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {name} is an object of names and values")
    return dict(_strings(value))


def _strings(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, text in value.items():
        yield key, str(text)
