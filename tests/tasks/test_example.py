"""The example package of docs/writing-tasks.md: its own tests, its kinds, and the blocks of code on that page."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.tasks.example import PACKAGE, ROOT, install

PAGE = ROOT / "docs" / "writing-tasks.md"


def python(target: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(target), str(ROOT)))}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=target,
        timeout=90,
    )


def test_its_own_tests_pass(tmp_path: Path) -> None:
    target = install(tmp_path / "site")
    words = ("-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(target))
    ended = python(target, *words, str(PACKAGE / "tests"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\b1[0-9] passed", ended.stdout)


def test_its_kinds_are_found_where_it_is_installed(tmp_path: Path) -> None:
    code = "from raftd.tasks import registry; r = registry.load(); print(*r.offered()); print(dict(r.broken))"
    offered, broken = python(install(tmp_path / "site"), "-c", code).stdout.splitlines()
    assert offered.split() == ["count-primes", "list-primes", "noop", "publish", "render-tile", "sleep"]
    assert broken == "{}"


def test_a_new_kind_costs_the_servers_that_check_it_next_to_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from raftd.tasks import registry; registry.load();"
        "print([name for name in ('mitsuba', 'numpy', 'cloudpickle', 'grpc') if name in sys.modules])"
    )
    assert python(install(tmp_path / "site"), "-c", code).stdout == "[]\n"


def test_every_block_on_the_page_is_in_the_package() -> None:
    sources = {
        "python": [PACKAGE / "raftd_primes.py", PACKAGE / "tests" / "test_primes.py"],
        "toml": [PACKAGE / "pyproject.toml"],
    }
    blocks = re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    for language, block in blocks:
        assert any(block in source.read_text(encoding="utf-8") for source in sources[language]), block
