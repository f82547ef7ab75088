"""Installs the example package of docs/writing-tasks.md into a directory, as pip would, and without it or a network."""

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "docs" / "examples" / "primes"


def install(target: Path) -> Path:
    """Put the modules there with the metadata that its pyproject.toml stands for; ``target`` goes on the path."""
    settings = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    about = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    for module in settings["tool"]["setuptools"]["py-modules"]:
        shutil.copy(PACKAGE / f"{module}.py", target)
    metadata = {"Metadata-Version": "2.1", "Name": project["name"], "Version": project["version"]}
    (about / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in metadata.items()))
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return target
