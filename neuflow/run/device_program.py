"""A device section as the interpreter takes it: its instructions in order, records unpacked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuflow.layout import COLUMN_BITS, CONFIG_BITS, UNITS, Kind, Opcode
from neuflow.run.instructions import instructions, records

_COLUMNS = [
    tuple(c for c in range(COLUMN_BITS) if named >> c & 1) for named in range(1 << COLUMN_BITS)
]

_NAMES = [tuple(field.name for field in layout.fields) for layout in UNITS.values()]
"""Names of the fields that a kind's records have."""

_NONE = -1
_WORDS = np.full(16, _NONE)
"""Words of a record by kind; of what is no kind ``_NONE``, which no instruction has."""
_WORDS[: len(UNITS)] = [layout.words for layout in UNITS.values()]

_LAST_BITS = np.array([(layout.bits - 1) % CONFIG_BITS + 1 for layout in UNITS.values()])
"""Bits of the last word of a record that are fields', by kind."""


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
    at, end, heads = instructions(code)
    # The last instruction may be cut off: what it lacks is 0.
    words = np.zeros(end, np.int64)
    words[: len(code)] = code[:end]
    carried = _carried(words, at, heads)
    found = []
    wanted = ("opcode", "kind", "sub", "columns", "relocate", "left", "length")
    columns = (heads[name].tolist() for name in wanted)
    for number, (word, opcode, kind, sub, named, relocate, left, length) in enumerate(
        zip(at.tolist(), *columns, strict=True)
    ):
        values, fault = carried.get(number, ([], ""))
        if opcode == Opcode.CONFIG and not values:
            fault = f"a configuration of {length} words for kind {kind}"
        found.append(
            Instruction(word, opcode, kind, sub, _COLUMNS[named], relocate, left, values, fault)
        )
    return found


def _carried(
    words: NDArray[np.int64], at: NDArray[np.int64], heads: dict[str, NDArray[np.int64]]
) -> dict[int, tuple[list[dict[str, int]], str]]:
    """Return by instruction what a CONFIG of legal length carries, and its fault."""
    kind, length = heads["kind"], heads["length"]
    legal = np.where(kind == Kind.ROUTER, length > 0, length == _WORDS[kind])
    mine = np.flatnonzero((heads["opcode"] == Opcode.CONFIG) & legal)
    each = _WORDS[kind[mine]]
    counts = length[mine] // each
    begin = np.cumsum(counts) - counts
    # Of each record: its kind, its words, and the first of them.
    of, size = np.repeat(kind[mine], counts), np.repeat(each, counts)
    first = np.repeat(at[mine] + 1 - begin * each, counts) + np.arange(len(of)) * size
    fields = records(words, of, first, size).tolist()
    values = [
        dict(zip(_NAMES[kind], row, strict=False)) for kind, row in zip(of.tolist(), fields, strict=True)
    ]
    beyond = (words[first + size - 1] >> _LAST_BITS[of]).tolist()
    found = {}
    for number, low, count in zip(mine.tolist(), begin.tolist(), counts.tolist(), strict=True):
        fault = ""
        if any(beyond[low : low + count]):
            fault = f"{Kind(kind[number]).name} has bits beyond its fields"
        found[number] = values[low : low + count], fault
    return found


__all__ = ["Instruction", "decode"]
