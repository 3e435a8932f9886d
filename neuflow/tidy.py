"""Tidy exported Verilog for people: drop wires that nothing reads.

Amaranth names every field of every record, and every step between two ports, with a wire of its
own. Most are read by nothing; without them the text is shorter by half and says the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

_NAME = re.compile(r"\\\S+ |[A-Za-z_$][\w$]*")
_WIRE = re.compile(r"^  (?:wire|reg) (?:signed )?(?:\[\d+:\d+\] )?(\\\S+ |[\w$]+)(?: = [^;]+)? ?;$")
_ASSIGN = re.compile(r"^  assign (\\\S+ |[\w$]+)(?: ?\[[\d:]+\])? +=")


def drop_unread(text: str) -> str:
    """Return ``text`` without wires that are declared and assigned but never read.

    Only plain one-line declarations and assignments are dropped, module by module; ports, which are
    declared twice, and everything in processes or instances stay.
    """
    modules = re.split(r"(?m)^(?=module )", text)
    return "".join(_tidy(module) for module in modules)


def _tidy(module: str) -> str:
    lines = module.splitlines(keepends=True)
    while True:
        uses = Counter(name.strip() for line in lines for name in _NAME.findall(line))
        declared: Counter[str] = Counter()
        assigned: Counter[str] = Counter()
        for line in lines:
            if found := _WIRE.match(line):
                declared[found[1].strip()] += 1
            elif found := _ASSIGN.match(line):
                assigned[found[1].strip()] += 1
        unread = {
            name for name, n in declared.items() if n == 1 and uses[name] == 1 + assigned[name]
        }
        if not unread:
            return "".join(lines)
        lines = list(_without(lines, unread))


def _without(lines: list[str], names: set[str]) -> Iterator[str]:
    """Yield the lines but those that declare or assign ``names``, and the attributes before them.

    An attribute that stayed would belong to the next declaration, and yosys would refuse the file.
    """
    attributes: list[str] = []
    for line in lines:
        if line.startswith("  (*"):
            attributes.append(line)
            continue
        if not _names_one_of(line, names):
            yield from attributes
            yield line
        attributes = []


def _names_one_of(line: str, names: set[str]) -> bool:
    found = _WIRE.match(line) or _ASSIGN.match(line)
    return found is not None and found[1].strip() in names
