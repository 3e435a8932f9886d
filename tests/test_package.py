"""What is handed on without Git: a source distribution holds all that its tests and its README need."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_source_distribution_holds_every_directory_with_sources() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    ours = {path.parent.name for path in ROOT.glob("[!.]*/*.py")}
    assert {"neuflow", "scripts", "tests"} <= ours <= included
