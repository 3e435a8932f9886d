"""A device section as tables: its instructions, and the fields of what they carry, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.compiled import kernel
from neuflow.layout import CONFIG_BITS, INSTRUCTION, UNITS, Layout, Opcode

_FIELDS = [field.name for field in INSTRUCTION.fields]
_LENGTH = sum(field.bits for field in INSTRUCTION.fields[: _FIELDS.index("length")])
_LENGTH_MASK = (1 << INSTRUCTION.fields[_FIELDS.index("length")].bits) - 1
_CONFIG, _FENCE, _END = int(Opcode.CONFIG), int(Opcode.FENCE), int(Opcode.END)
_OPCODE_MASK = (1 << INSTRUCTION.fields[_FIELDS.index("opcode")].bits) - 1

END_WORDS = 3
"""Words of END: the instruction and both steps."""


@kernel
def _heads(code: Any, found: Any) -> Any:
    """Return how many instructions there are, and the word behind the last; fill ``found``."""
    count = at = 0
    while at < len(code):
        opcode = code[at] & _OPCODE_MASK
        if count < len(found):
            found[count] = at
        count += 1
        if opcode == _CONFIG:
            at += 1 + (code[at] >> _LENGTH & _LENGTH_MASK)
        elif opcode == _FENCE:
            at += 1
        else:
            at += END_WORDS if opcode == _END else 1
            break
    return count, at


def _places(layouts: Sequence[Layout]) -> NDArray[np.int64]:
    """Return first bit, bits and sign of fields, int64 [layouts, most fields of one, 3]; else 0."""
    places = np.zeros((len(layouts), max(len(layout.fields) for layout in layouts), 3), np.int64)
    for number, layout in enumerate(layouts):
        bits = [field.bits for field in layout.fields]
        signs = [field.signed for field in layout.fields]
        places[number, : len(bits)] = np.stack([np.cumsum([0, *bits[:-1]]), bits, signs], axis=1)
    return places


_INSTRUCTIONS = _places([INSTRUCTION])
_RECORDS = _places(list(UNITS.values()))
assert list(UNITS) == list(range(len(UNITS)))


@kernel
def _unpacked(code: Any, places: Any, which: Any, first: Any, words: Any, fields: Any) -> None:
    """Fill ``fields`` [records, fields] of records of ``places[which]``, or 0 for no such.

    ``words``: how many a record has, from ``first`` on; the others are 0.
    """
    for record in range(len(first)):
        if which[record] >= len(places):
            continue
        for n in range(fields.shape[1]):
            word, bit = divmod(places[which[record], n, 0], CONFIG_BITS)
            bits, signed = places[which[record], n, 1], places[which[record], n, 2]
            if bits == 0 or word >= words[record]:
                continue
            # No field is wider than a word, so two words hold it; 62 bits at most come out.
            value = np.int64(code[first[record] + word]) >> bit
            if bit + bits > CONFIG_BITS and word + 1 < words[record]:
                value |= np.int64(code[first[record] + word + 1]) << (CONFIG_BITS - bit)
            value &= (1 << bits) - 1
            if signed:
                value -= (value >> (bits - 1)) << bits
            fields[record, n] = value


def instructions(
    code: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], int, dict[str, NDArray[np.int64]]]:
    """Return the first word of each instruction, the word behind the last, and fields by name.

    The last is END, or the first that is no instruction, or is cut off by the end of the code.
    """
    count, end = _heads(code, np.zeros(0, np.int64))
    at, one = np.zeros(count, np.int64), np.ones(count, np.int64)
    _heads(code, at)
    fields = np.zeros((count, len(_FIELDS)), np.int64)
    _unpacked(code, _INSTRUCTIONS, one - 1, at, one, fields)
    return at, int(end), dict(zip(_FIELDS, fields.T, strict=True))


def records(
    code: NDArray[np.int64],
    kinds: NDArray[np.int64],
    first: NDArray[np.int64],
    words: NDArray[np.int64],
    most: int = _RECORDS.shape[1],
) -> NDArray[np.int64]:
    """Return the fields of what units get, int64 [records, most]: those of ``UNITS[kind]``, then 0.

    ``words``: how many there are of a record, from ``first`` on; fields in those that lack are 0.
    """
    fields = np.zeros((len(kinds), most), np.int64)
    _unpacked(code, _RECORDS, kinds, first, words, fields)
    return fields


__all__ = ["END_WORDS", "instructions", "records"]
