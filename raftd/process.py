"""The process around a node: its logging, its signals, and how it ends.

What may live here: what belongs to a process and not to a node. A node that cannot go on ends here, at once and from
whatever thread noticed: nothing may be acknowledged after a failed write.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time

from raftd.config import Config, read_token
from raftd.errors import (
    ConfigError,
    NameTaken,
    OldCopy,
    RaftdError,
    StorageError,
    StoreRemoved,
    StoreTwice,
    Unavailable,
    UnknownFormat,
    WrongIdentity,
)
from raftd.founding import employ
from raftd.storage.directory import DataDirectory
from raftd.storage.worker import WorkerDirectory, is_made
from raftd.wiring import build

log = logging.getLogger("raftd")

FATAL_EXIT_CODE = 1
STORAGE_EXIT_CODE = 3

ASK_S = 30.0
ASK_PAUSE_S = 0.5
"""For how long, and how often, a worker that is made asks which cluster it is of."""

GC_THRESHOLD = 20_000
"""Allocations between two young collections. The default of 700 collects hundreds of times a second under load, and
every full one walks all tasks (36 ms for 200,000 objects). Five young ones make a middle one: with more, that one walks
so many objects of a flood of submissions that a busy machine's followers stand for election meanwhile."""


def serve(config: Config) -> int:
    """Run a node until TERM or INT (it hands the leadership over first) or QUIT (it does not); the process's exit code.

    Raises:
        RaftdError: it could not be started.
    """
    _start_logging(config)
    directory = _open_worker(config) if config.role == "worker" else _open_member(config)
    if config.store_id not in (None, directory.identity.store_id):
        directory.close()
        raise WrongIdentity(
            f"{config.data_dir} belongs to {directory.identity}, not to store {config.store_id:016x}",
            try_="start it with the data directory that was meant",
        )
    gc.set_threshold(GC_THRESHOLD, 5, 400)
    gc.freeze()
    try:
        return asyncio.run(_serve(config, directory))
    except RaftdError as error:
        log.error("%s", error.message)
        raise


def _open_member(config: Config) -> DataDirectory:
    directory = DataDirectory.open(
        str(config.data_dir),
        name=config.name or None,
        cluster_id=config.cluster_id,
        segment_bytes=config.segment_bytes,
    )
    if (torn := directory.recovered.torn_tail) is not None:
        log.warning(
            "the log ended in a write that a crash interrupted; it was never acknowledged and is cut: %s",
            torn,
        )
    return directory


def _open_worker(config: Config) -> WorkerDirectory:
    """A worker's directory; the first start makes it. Of whose cluster it is, a member is asked where nobody says."""
    path = str(config.data_dir)
    if not is_made(path):
        if not config.name:
            raise ConfigError(
                "a worker's first start needs a name for it", try_="--name w1, or any that is free"
            )
        cluster_id = config.cluster_id or asyncio.run(_ask_cluster_id(config))
        store = employ(config.data_dir, config.name, cluster_id, config.store_id)
        log.info("%s is made for worker %s, store %016x", path, config.name, store)
    return WorkerDirectory.open(path, name=config.name or None, cluster_id=config.cluster_id)


async def _ask_cluster_id(config: Config) -> int:
    from raftd.transport.guides import ask_cluster_id

    if not config.join:
        raise ConfigError("no node of the cluster is named", try_="--join HOST:PORT,... of some members")
    token = read_token(config.token_file)
    deadline = time.monotonic() + ASK_S
    while True:
        failure: RaftdError | None = None
        for address in config.join:
            try:
                return await ask_cluster_id(address, token)
            except Unavailable as error:
                failure = error
        if time.monotonic() > deadline:
            said = failure.message if failure is not None else ""
            raise Unavailable(
                f"none of {', '.join(config.join)} answers: {said}",
                try_="start a member first, or name another",
            )
        await asyncio.sleep(ASK_PAUSE_S)


async def _serve(config: Config, directory: DataDirectory | WorkerDirectory) -> int:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()

    def stop(hand_over: bool) -> None:
        if not told.done():
            told.set_result(hand_over)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, True)
    # The whole cluster goes down: whoever took over would be the next to stop.
    loop.add_signal_handler(signal.SIGQUIT, stop, False)
    server = build(config, directory, end_process)
    await server.start()
    removed = asyncio.ensure_future(server.removed())
    await asyncio.wait((told, removed), return_when=asyncio.FIRST_COMPLETED)
    log.info("told to stop" if told.done() else "was removed from the cluster, and stops")
    await server.stop(hand_over=not told.done() or told.result())
    if removed.done():
        await removed  # raises where it had been removed before it was started: that is no good end
    removed.cancel()
    return 0


_ending = threading.Lock()


def end_process(error: BaseException) -> None:
    """Say why and end this process now, without unwinding: nothing may be sent or written any more."""
    if not _ending.acquire(blocking=False):
        return  # another thread has begun to
    expected = isinstance(error, RaftdError)
    log.critical("the node cannot go on: %s", error, exc_info=None if expected else error)
    message = error.message if isinstance(error, RaftdError) else f"{type(error).__name__}: {error}"
    print(f"error: the node cannot go on: {message}", file=sys.stderr)
    if isinstance(error, RaftdError) and error.try_:
        log.critical("try: %s", error.try_)
        print(f"try: {error.try_}", file=sys.stderr)
    logging.shutdown()
    sys.stderr.flush()
    foreign = isinstance(
        error, StorageError | UnknownFormat | OldCopy | StoreTwice | NameTaken | StoreRemoved
    )
    os._exit(STORAGE_EXIT_CODE if foreign else FATAL_EXIT_CODE)


def _start_logging(config: Config) -> None:
    handler: logging.Handler = logging.StreamHandler()
    if config.log_file is not None:
        try:
            handler = logging.handlers.RotatingFileHandler(
                config.log_file, maxBytes=config.log_file_bytes, backupCount=1, encoding="utf-8"
            )
        except OSError as error:
            raise ConfigError(f"cannot write the log file {config.log_file}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)
