"""A device section as tables: its instructions, and the fields of records, all of a kind at once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.cycle.compiled import kernel
from neuflow.layout import CONFIG_BITS, INSTRUCTION, Layout, Opcode

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


def heads(code: NDArray[np.uint32]) -> tuple[NDArray[np.int64], int]:
    """Return the first word of each instruction, int64 [n], and the word behind the last.

    The last is END, or the first that is no instruction, or is cut off by the end of the code.
    """
    count, _ = _heads(code, np.zeros(0, np.int64))
    found = np.zeros(count, np.int64)
    _, end = _heads(code, found)
    return found, int(end)


@functools.cache
def _places(layout: Layout) -> NDArray[np.int64]:
    """Return first bit, bits and sign of a layout's fields, int64 [fields, 3]."""
    bits = [field.bits for field in layout.fields]
    first = np.cumsum([0, *bits[:-1]])
    return np.stack([first, bits, [field.signed for field in layout.fields]], axis=1).astype(np.int64)


@kernel
def _unpacked(words: Any, places: Any) -> Any:
    fields = np.empty((len(words), len(places)), np.int64)
    for n in range(len(places)):
        word, bit = places[n, 0] // CONFIG_BITS, places[n, 0] % CONFIG_BITS
        bits, signed = places[n, 1], places[n, 2]
        for k in range(len(words)):
            # No field is wider than a word, so two words hold it; 62 bits at most come out.
            value = words[k, word] >> bit
            if bit + bits > CONFIG_BITS:
                value |= words[k, word + 1] << (CONFIG_BITS - bit)
            value &= (1 << bits) - 1
            if signed:
                value -= (value >> (bits - 1)) << bits
            fields[k, n] = value
    return fields


def unpack(layout: Layout, words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the fields of records, int64 [n, fields], from their words, int64 [n, layout.words]."""
    return np.asarray(_unpacked(words, _places(layout)))
