"""raftd's side of an executor, as a process that tests can stop and kill: `driver.py DIRECTORY LEASE_MS ARGV...`.

It runs ARGV as a `shell` attempt and writes what happens as JSON lines to stdout: `ready` with the supervisor's process
id, `hello` with each incarnation that registers, `ended` with the outcome. A line on stdin ends it in good order.
"""

import asyncio
import json
import sys
from pathlib import Path

from raftd.errors import RaftdError
from raftd.scheduler.attach import Hello
from tests.executor.fakes import Rig, assignment


def say(what: str, **more: object) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


async def main() -> None:
    directory, lease_ms, *argv = sys.argv[1:]
    rig = Rig(Path(directory), lease_ms=int(lease_ms))

    def welcome(hello: Hello) -> RaftdError | None:
        say("hello", incarnation=hello.incarnation)
        if hello.incarnation > 1:
            rig.leader.desired.clear()  # as RegisterNode does: what the old incarnation ran is over
        return None

    rig.leader.refusal = welcome
    rig.leader.heartbeat_ms = max(20, int(lease_ms) // 3)
    async with rig:
        say("ready", supervisor=rig.executor.supervisor_pid)
        if argv:
            rig.leader.start(assignment(1, "shell", *argv))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main())
