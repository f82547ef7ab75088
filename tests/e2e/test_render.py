"""The main job, small: a picture through the death of the leader and a cut equals the one of a single process."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import ROOT, Cluster
from tests.support import wait_until

FRAME = ("--width", "128", "--height", "96", "--tiles", "6x6", "--samples", "64")


def test_a_picture_is_the_same_through_a_kill_and_a_cut(five: Cluster, tmp_path: Path) -> None:
    before = five.status()["succeeded"]

    def tiles() -> int:
        done: int = five.status("--timeout", "20s")["succeeded"] - before
        return done

    rendering = five.start("render", *FRAME, "-o", str(tmp_path / "cluster.png"))
    try:
        wait_until(lambda: tiles() >= 6, 60, "the first tiles are done")
        leader = five.leader()
        five.run("kill", leader)
        cut_off = next(name for name in five.nodes() if name not in (leader, five.leader()))
        five.run("isolate", cut_off)
        wait_until(lambda: tiles() >= 18 or rendering.poll() is not None, 60, "half of the tiles are done")
        five.run("heal")
        five.run("node", "start", leader)
        _, said = rendering.communicate(timeout=90)
    finally:
        rendering.kill()
    assert rendering.returncode == 0, said
    reference = str(tmp_path / "reference.tiles")
    subprocess.run(
        [sys.executable, "-m", "raftd.tasks.render", *FRAME, "--out", reference], check=True, cwd=ROOT
    )
    five.run("render", *FRAME, "--assemble", reference, "-o", str(tmp_path / "reference.png"))
    assert (tmp_path / "cluster.png").read_bytes() == (tmp_path / "reference.png").read_bytes()
