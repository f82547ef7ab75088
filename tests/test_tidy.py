"""The project's style, as far as a machine can judge it: what ruff, mypy and import-linter do not look at.

Each test names a rule and lists every place that breaks it. Whoever needs an exception changes the rule here, in
plain sight, with a reason.
"""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("raftd", "raftctl")
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 75

# Written in two parts, so that this file does not contain what it forbids.
LEFT_UNDONE = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b|raise NotImpl" + "emented"
)
KILL_BY_NAME = re.compile(r"\b(p" + "kill|kill" + r"all)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(wo" + "rk|ro" + "ot|ho" + "me|Us" + r"ers|tmp/v)/")
NOT_RUN = re.compile(r"pytest\.(skip|xfail)|mark\.(skip|xfail)|unittest\.skip|importor" + "skip")
ELSEWHERE = re.compile(r"\.\./shared|shared" + "/design")

# One word per concept (ARCHITECTURE.md, "Names"): whole identifiers, or parts of one between underscores.
FORBIDDEN_NAMES = {
    "checkquorum": "check_quorum",
    "commit_idx": "commit_index",
    "commit_offset": "commit_index",
    "fence_token": "fencing_token",
    "generation": "epoch, incarnation or term",
    "last_commit": "commit_index",
    "matched_index": "match_index",
    "nonvoter": "learner",
    "nonvoters": "learners",
    "non_voter": "learner",
    "prevote": "pre_vote",
    "readindex": "read_index",
    "req_id": "request_id",
    "storeid": "store_id",
}
# Units come last and are milliseconds, bytes or counts; seconds are `_s`, and only where a library wants them.
FORBIDDEN_SUFFIXES = ("_millis", "_msec", "_msecs", "_sec", "_secs", "_seconds", "_kb", "_mb", "_cnt")
FORBIDDEN_MODULES = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}


@cache
def python_files() -> tuple[Path, ...]:
    """Every module that people write: not the generated ones."""
    found = [path for top in (*PACKAGES, "tests") for path in (ROOT / top).rglob("*.py")]
    return tuple(
        sorted(path for path in found if "_pb2" not in path.name and "__pycache__" not in path.parts)
    )


@cache
def text_files() -> tuple[Path, ...]:
    """Every text that people write: code, scripts, protos, documents, settings."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "protos").glob("*.proto")]
    return (
        *python_files(),
        *sorted(scripts),
        ROOT / ".ci" / "run",
        *sorted(documents),
        ROOT / "pyproject.toml",
    )


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_product(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in PACKAGES


def lines_matching(
    pattern: re.Pattern[str], paths: Iterator[Path] | tuple[Path, ...] | list[Path]
) -> list[str]:
    """`file:line: text` of every line that matches."""
    return [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def assert_none(found: list[str], rule: str) -> None:
    assert not found, f"{rule}:\n  " + "\n  ".join(found)


def test_every_module_says_what_lives_in_it() -> None:
    written = (path for path in python_files() if path.stat().st_size)
    bare = [name_of(path) for path in written if not ast.get_docstring(tree_of(path))]
    assert_none(bare, "a module opens with what may live in it and why")


def test_modules_are_short() -> None:
    counts = ((path, len(path.read_text(encoding="utf-8").splitlines())) for path in python_files())
    long = [
        f"{name_of(path)}: {count} lines"
        for path, count in counts
        if is_product(path) and count > MAX_MODULE_LINES
    ]
    assert_none(long, f"a module has at most {MAX_MODULE_LINES} lines")


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert_none(long, f"a function has at most {MAX_FUNCTION_LINES} lines")


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = [name_of(path) for path in python_files() if path.name in FORBIDDEN_MODULES]
    assert_none(drawers, "a concept has a module with its own name")


def test_nothing_is_left_undone() -> None:
    assert_none(
        lines_matching(LEFT_UNDONE, text_files()), "what is left to do is an issue, not a note in the code"
    )


def test_names_are_the_projects_own() -> None:
    found = []
    for path in python_files():
        for line, name in sorted(set(identifiers(tree_of(path)))):
            lower = name.lower().strip("_")
            said = [right for wrong, right in FORBIDDEN_NAMES.items() if f"_{wrong}_" in f"_{lower}_"]
            if said or lower.endswith(FORBIDDEN_SUFFIXES):
                found.append(
                    f"{name_of(path)}:{line}: {name} ({said[0] if said else 'units are _ms, _bytes, _count'})"
                )
    assert_none(found, "one word per concept (ARCHITECTURE.md, Names)")


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that the module itself gives: to functions, classes, arguments, variables and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_tests_wait_for_conditions() -> None:
    sleeping = re.compile(r"\btime\.sleep\(|asyncio\.sleep\((?!0\))")
    tests = [
        path
        for path in python_files()
        if not is_product(path) and path.name not in ("support.py", "test_tidy.py")
    ]
    assert_none(lines_matching(sleeping, tests), "a test waits with tests.support.wait_until or eventually")


def test_every_test_runs() -> None:
    # CPython's own tests of executors come with the interpreter, or do not.
    may_skip = ("test_tidy.py", "test_executor_cpython.py")
    tests = [path for path in python_files() if not is_product(path) and path.name not in may_skip]
    assert_none(lines_matching(NOT_RUN, tests), "no test is skipped")


def test_processes_are_ended_by_id() -> None:
    assert_none(
        lines_matching(KILL_BY_NAME, text_files()), "a process is ended by its pid, never by its name"
    )


def test_no_path_of_one_machine() -> None:
    assert_none(lines_matching(MACHINE_PATH, text_files()), "no path of one machine")


def test_the_project_stands_alone() -> None:
    assert_none(lines_matching(ELSEWHERE, text_files()), "no document refers to one that is not in the tree")


def test_no_exception_is_swallowed() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]
    assert_none(found, "a handler for everything says what it does with it")


def test_a_check_is_silenced_for_a_stated_reason() -> None:
    bare = re.compile(r"#\s*(type:\s*ignore|noqa|pragma:)(?!\S*\s+#\s*\w)")
    files = [path for path in python_files() if path.name != "test_tidy.py"]
    assert_none(lines_matching(bare, files), "a silenced check is followed by `# and why`")


def test_click_is_typers_own() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "click" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "click")
    ]
    assert_none(found, "typer carries its own click")


def test_pyproject_lists_every_package() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in PACKAGES
        for path in (ROOT / top).rglob("*.py")
    }
    assert sorted(there) == listed
    assert_none(
        [name for name in there if not (ROOT / name.replace(".", "/") / "__init__.py").exists()],
        "no __init__.py",
    )


def test_there_is_one_version() -> None:
    version = project()["project"]["version"]
    for package in PACKAGES:
        assert f'__version__ = "{version}"' in (ROOT / package / "__init__.py").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_task_kind_has_its_callable() -> None:
    for kind, target in project()["project"]["entry-points"]["raftd.tasks"].items():
        module, _, name = target.partition(":")
        path = ROOT / (module.replace(".", "/") + ".py")
        defined = {
            node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert name in defined, f"{kind} -> {target}"


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def scripts() -> list[Path]:
    found = (path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".py")
    return [*sorted(found), ROOT / ".ci" / "run"]


@pytest.mark.parametrize("script", scripts(), ids=name_of)
def test_scripts_are_plain_bash(script: Path) -> None:
    """macOS ships bash 3.2: no associative arrays, no mapfile, no case conversion, no `|&`, no negative subscripts."""
    text = script.read_text(encoding="utf-8")
    if not script.name.endswith(".sh"):
        assert os.access(script, os.X_OK), "not executable"
        assert text.startswith("#!/usr/bin/env bash\n")
    newer = re.compile(
        r"declare\s+-[a-zA-Z]*[Agn]|local\s+-[An]|\b(mapfile|readarray|coproc)\b|\$\{\w+(\[[@*]\])?(,,?|\^\^?|@\w)"
        r"|\|&|&>>|\$\{\w+\[-\d|;;&|\bwait\s+-n\b|\bEPOCH(SECONDS|REALTIME)\b"
    )
    assert_none(lines_matching(newer, [script]), "needs a bash newer than 3.2")
    assert_none(lines_matching(re.compile(r"\t"), [script]), "tabs")


def test_links_in_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
    dead = [
        f"{name_of(path)}: {target}"
        for path in text_files()
        if path.suffix == ".md"
        for target in link.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert_none(dead, "a dead link")


def test_documents_that_the_code_names_exist() -> None:
    mention = re.compile(r"(?<![\w/])docs/[\w./-]+\.\w+")
    dead = [
        f"{name_of(path)}: {target}"
        for path in text_files()
        for target in mention.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / target).exists()
    ]
    assert_none(dead, "a document that is not there")


def test_decision_records_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
