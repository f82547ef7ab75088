"""The root: which words there are, where options may stand, and what an error looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raftctl import app, context
from raftctl.errors import ExitCode, UsageError

GLOBALS = ("--cluster", "--address", "--output", "--quiet", "--verbose", "--timeout", "--no-color")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = app.run(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_root_help_imports_neither_grpc_nor_rich_nor_a_command() -> None:
    heavy = "{'grpc', 'rich', 'google', 'plumbum', 'asyncio', 'raftctl.commands', 'pydantic_settings'}"
    code = (
        "import sys; from raftctl.app import run; code = run(['--help']); "
        f"found = {heavy} & set(sys.modules); print(found, file=sys.stderr); sys.exit(code or len(found))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for word in (
        "cluster",
        "submit",
        "status",
        "task",
        "node",
        "kill",
        "partition",
        "heal",
        "render",
        "version",
    ):
        assert f"\n  {word} " in ran.stdout
    assert all(option in ran.stdout for option in GLOBALS)


def test_every_word_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for word in app._WORDS:
        code, out, err = said(capsys, word, "--help")
        assert (code, err) == (0, ""), word
        assert out.startswith(f"Usage: raftctl {word}")
        assert "raftctl --help" in out, "it says where the options are that stand everywhere"


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "json", "version"],
        ["version", "-o", "json"],
        ["version", "--output=json"],
        ["-q", "version", "--timeout", "1s", "-o", "json", "--no-color"],
    ],
)
def test_options_stand_anywhere(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert out.startswith("{")


def test_options_stand_between_a_group_and_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "cluster", "-o", "json", "list")
    assert (code, out) == (0, "[]\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["versoin"], "Did you mean 'version'?"),
        (["version", "--nonsense"], "no such option: --nonsense"),
        (["version", "-o", "xml"], "-o xml is no output format"),
        (["version", "--timeout", "soon"], "'soon' is no duration"),
        (["submit"], "what is to be submitted?"),
        (["task"], "raftctl task needs a command"),
        (["-c", "No Such", "status"], "cannot be a cluster's name"),
        (["--address", "nowhere", "status"], "'nowhere' is no address"),
        (["submit", "sleep", "-1"], "no such option: -1"),
        (["submit", "noop", "--array", "9-3"], "--array 9-3 names no indices"),
        (["submit", "noop", "--env", "novalue"], "--env 'novalue'"),
        (["submit", "noop", "--backoff", "fast"], "--backoff fast"),
        (["submit", "noop", "--max-failures", "3"], "--max-failures is for arrays"),
        (["render", "--tiles", "8"], "8x8"),
        (["render", "-o", "picture.gif"], "picture.gif"),
    ],
)
def test_what_was_mistyped_is_said_in_three_lines(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert code == ExitCode.USAGE
    assert out == ""
    assert message.lower() in err.lower()
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 3
    assert "Traceback" not in err


def test_a_cluster_that_does_not_exist_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "status", "-c", "nobody")
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert "'nobody'" in err


def test_a_traceback_is_shown_only_when_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("raftctl.sdk.load_endpoints", broken)
    code, _, err = said(capsys, "status")
    assert code == ExitCode.ERROR
    assert "ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    _, _, err = said(capsys, "status", "-v")
    assert "Traceback" in err


def test_an_interrupted_command_exits_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raftctl.sdk.load_endpoints", interrupted)
    code, _, err = said(capsys, "status")
    assert code == ExitCode.INTERRUPTED
    assert "Traceback" not in err


def test_which_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("RAFTCTL_CLUSTER", raising=False)
    asked = context.Invocation()
    assert asked.cluster_name() == "default"
    context.use_cluster("in-use")
    assert asked.cluster_name() == "in-use"
    monkeypatch.setenv("RAFTCTL_CLUSTER", "of-env")
    assert asked.cluster_name() == "of-env"
    asked.cluster = "of-option"
    assert asked.cluster_name() == "of-option"
    assert asked.cluster_name("named") == "named"
    with pytest.raises(UsageError):
        asked.cluster_name("../etc")
