"""A device section as the interpreter takes it: its instructions in order, records unpacked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuflow.layout import COLUMN_BITS, CONFIG_BITS, INSTRUCTION, UNITS, Kind, Opcode
from neuflow.run.instructions import heads, unpack

_COLUMNS = [
    tuple(c for c in range(COLUMN_BITS) if named >> c & 1) for named in range(1 << COLUMN_BITS)
]


class Instruction(NamedTuple):
    """One instruction. CONFIG: ``records`` are the fields of what it carries, as values by name.

    ``fault`` says what no unit would understand; it counts once the instruction is reached.
    """

    word: int
    opcode: int
    kind: int
    sub: int
    columns: tuple[int, ...]
    relocate: int
    left: int
    records: list[dict[str, int]]
    fault: str = ""


def decode(code: NDArray[np.uint32]) -> list[Instruction]:
    """Return the instructions up to END, or to the first word that is none."""
    at, end = heads(code)
    # The last instruction may be cut off: what it lacks is 0.
    words = np.zeros(end, np.int64)
    words[: len(code)] = code[:end]
    names = [field.name for field in INSTRUCTION.fields]
    fields = dict(zip(names, unpack(INSTRUCTION, words[at, None]).T, strict=True))
    records = _records(words, at, fields)
    found = []
    wanted = ("opcode", "kind", "sub", "columns", "relocate", "left", "length")
    columns = (fields[name].tolist() for name in wanted)
    for number, (word, opcode, kind, sub, named, relocate, left, length) in enumerate(
        zip(at.tolist(), *columns, strict=True)
    ):
        carried, fault = records.get(number, ([], ""))
        if opcode == Opcode.CONFIG and not carried:
            fault = f"a configuration of {length} words for kind {kind}"
        found.append(
            Instruction(word, opcode, kind, sub, _COLUMNS[named], relocate, left, carried, fault)
        )
    return found


def _records(
    words: NDArray[np.int64], at: NDArray[np.int64], heads: dict[str, NDArray[np.int64]]
) -> dict[int, tuple[list[dict[str, int]], str]]:
    """Return by instruction what a CONFIG of legal length carries, and its fault."""
    found = {}
    for kind, layout in UNITS.items():
        legal = heads["length"] == layout.words
        if kind == Kind.ROUTER:
            legal = heads["length"] > 0
        mine = np.flatnonzero((heads["opcode"] == Opcode.CONFIG) & (heads["kind"] == kind) & legal)
        counts = heads["length"][mine] // layout.words
        begin = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(begin, counts)
        first = np.repeat(at[mine] + 1, counts) + within * layout.words
        raw = words[first[:, None] + np.arange(layout.words)]
        names = [field.name for field in layout.fields]
        values = [dict(zip(names, row, strict=True)) for row in unpack(layout, raw).tolist()]
        spare = layout.words * CONFIG_BITS - layout.bits
        beyond = (raw[:, -1] >> (CONFIG_BITS - spare)).tolist()
        for number, low, count in zip(mine.tolist(), begin.tolist(), counts.tolist(), strict=True):
            fault = f"{kind.name} has bits beyond its fields" if any(beyond[low : low + count]) else ""
            found[number] = values[low : low + count], fault
    return found


__all__ = ["Instruction", "decode"]
