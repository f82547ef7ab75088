"""The built-in kinds: what they refuse, what they do, and what importing them costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftd.errors import ConfigError, InvalidArguments, UnknownKind
from raftd.tasks import builtin, registry
from raftd.tasks.context import TaskContext
from raftd.tasks.pickled import VERSION

REGISTRY = registry.load()


class NoLink:
    """A slot that keeps what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.heard: list[float] = []

    def progress(self, fraction: float, message: str) -> None:
        self.heard.append(fraction)

    def fetch_blob(self, digest: str) -> Path:
        return self.directory / digest

    def store_blob(self, source: bytes | Path) -> str:
        return "0" * 64

    def make_workdir(self) -> Path:
        made = self.directory / "made"
        made.mkdir()
        return made


def context(directory: Path) -> TaskContext:
    return TaskContext(NoLink(directory), task_id="t17", attempt=1, fencing_token="1.57")


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("noop", ()),
        ("sleep", ("0",)),
        ("sleep", ("2.5",)),
        ("sleep", ("604800",)),
        ("shell", ("echo", "", "a b")),
        ("render-tile", ("42",)),
        ("python", (VERSION,)),
        ("python", (VERSION, "0" * 64)),
    ],
)
def test_good_arguments_are_taken(kind: str, args: tuple[str, ...]) -> None:
    REGISTRY.check(kind, args)


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("noop", ("x",), "takes no arguments"),
        ("sleep", (), "takes one argument"),
        ("sleep", ("1", "2"), "takes one argument"),
        ("sleep", ("soon",), "from 0 to 604800"),
        ("sleep", ("-1",), "from 0 to 604800"),
        ("sleep", ("nan",), "from 0 to 604800"),
        ("sleep", ("inf",), "from 0 to 604800"),
        ("sleep", ("1e9",), "from 0 to 604800"),
        ("sleep", ("9" * 5000,), "from 0 to 604800"),
        ("shell", (), "needs a program"),
        ("shell", ("", "x"), "needs a program"),
        ("shell", ("a\0b",), "NUL"),
        ("shell", ("x" * 5000,), "4096"),
        ("python", (), "takes the version"),
        ("python", ("latest",), "takes the version"),
        ("python", ("2.7",), f"pickled by Python 2.7, and this node runs Python {VERSION}"),
        ("python", (VERSION, "0" * 63), "64 lower-case hex digits"),
        ("python", (VERSION, "0" * 64, "x"), "takes the version"),
        ("render-tile", ("64",), "outside the frame"),
        ("render-tile", (), "needs the number"),
    ],
)
def test_bad_arguments_are_refused_in_so_many_words(kind: str, args: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        REGISTRY.check(kind, args)
    assert words in refused.value.message
    assert len(refused.value.message) < 300


def test_an_unknown_kind_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownKind) as refused:
        REGISTRY.check("rendertile", ("1",))
    assert "render-tile" in refused.value.try_


def test_shell_is_offered_only_where_it_is_allowed() -> None:
    assert REGISTRY.offered() == ("noop", "render-tile", "sleep")
    assert REGISTRY.offered(["shell"]) == ("noop", "render-tile", "shell", "sleep")
    assert REGISTRY.offered(["python"]) == ("noop", "python", "render-tile", "sleep")


@pytest.mark.parametrize("kind", ["noop", "render", ""])
def test_only_a_kind_that_is_there_and_off_can_be_allowed(kind: str) -> None:
    REGISTRY.check_allowed(["shell", "python"])
    with pytest.raises(ConfigError, match=f"{kind!r} is not a kind that must be allowed") as refused:
        REGISTRY.check_allowed(["shell", kind])
    assert refused.value.try_ == "--allow python --allow shell"


def test_sleep_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "PROGRESS_EVERY_S", 0.01)
    link = NoLink(tmp_path)
    builtin.sleep(TaskContext(link, task_id="t1", attempt=1, fencing_token="1.1"), ("0.03",))
    assert link.heard == sorted(link.heard)
    assert link.heard[-1] == 1.0


def test_noop_does_nothing(tmp_path: Path) -> None:
    assert builtin.noop(context(tmp_path), ()) is None


def test_a_working_directory_is_made_when_it_is_asked_for_and_once(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    assert not (tmp_path / "made").exists()
    assert ctx.workdir == ctx.workdir == tmp_path / "made"


def test_checks_are_light() -> None:
    """Servers check submissions: neither the renderer nor the machinery of distributions may come along."""
    code = (
        "import sys; from raftd.tasks import registry;"
        "registry.find('render-tile').check(('1',)); registry.find('noop').check(());"
        f"registry.find('python').check(({VERSION!r},));"
        "print([name for name in ('cloudpickle', 'mitsuba', 'drjit', 'numpy', 'asyncio', 'importlib.metadata', 'grpc')"
        " if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_kinds_of_installed_distributions_are_found_and_broken_ones_said() -> None:
    plugin = str(Path(__file__).parent.parent / "executor" / "plugin")
    code = (
        "from raftd.tasks import registry; r = registry.load();"
        "print(' '.join(r.offered())); print(sorted(r.broken));"
        "print(r.kinds['noop'].run.__module__); print(r.broken['test-misnamed']); print(r.broken['noop']);"
        "print(r.broken['test-exits']); print(registry.find('test-bytes').name)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((plugin, str(Path(__file__).parent.parent.parent)))}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    offered, broken, noop, misnamed, taken, exits, found = said.stdout.splitlines()
    assert {"test-bytes", "test-isolated", "noop"} < set(offered.split())
    assert broken == "['noop', 'test-broken', 'test-exits', 'test-misnamed']"
    assert taken == "the name is taken by raftd.tasks.builtin:noop; raftd_test_kinds:give_blob is not used"
    assert exits == "SystemExit: not here"
    assert found == "test-bytes"
    assert noop == "raftd.tasks.builtin"
    assert "declared as 'test-blob'" in misnamed


def test_a_foreign_check_that_fails_is_a_refusal() -> None:
    def check(args: object) -> None:
        raise ZeroDivisionError("oops")

    @registry.task("odd", check=check)
    def odd(ctx: TaskContext, args: registry.Args) -> None:
        """Never runs."""

    with pytest.raises(InvalidArguments, match="odd: its check failed: ZeroDivisionError: oops"):
        registry.Registry({"odd": odd}).check("odd", ())


@pytest.mark.parametrize("name", ["", "Upper", "with space", "-dash", "x" * 64])
def test_a_name_that_nobody_can_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="kind name"):
        registry.task(name)
