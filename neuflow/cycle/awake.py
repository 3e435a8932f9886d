"""Which parts of a column move: what would change nothing is passed by (a model of clock gating).

A part is a unit, or some that sleep together, with one bit of ``WIRES.awake``. After its edge a part
falls asleep if the edge changed none of its registers and nothing passed at its links: as long as
its inputs stay as they are, the next cycle would change nothing either, and its wires stay as they
are. (Where something passes, registers need not be compared.) Whoever changes an input of a part
wakes it: in this cycle through ``WIRES.awake`` (a wire), in the next through ``WIRES.wakes`` (a
register). So no timing is said here or twice.

Registers are compared as plain numbers, through the field ``flat`` of a part's record.
"""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import DRAIN as DRAIN_UNIT
from neuflow.cycle.state import INT, READ_OPERAND, READ_ROWS, UNITS, WRITE

ROWS, WEIGHTS, ARRAY = 1 << 0, 1 << 1, 1 << 2
BACK = 1 << 3
"""All behind the drain: operators, window unit, mapper, FIFOs, routers."""
READER = 1 << 4
"""Read port 0; those of ports 1 and 2 follow."""
OPERAND_READER = READER << (READ_OPERAND - READ_ROWS)
WRITER = 1 << 7
RECEIVERS = 1 << 8
DRAIN = 1 << 9
ALL = (1 << 10) - 1
PORTS = READER | READER << 1 | OPERAND_READER | WRITER

PART_OF = np.array(
    [ROWS, WEIGHTS, ARRAY, WEIGHTS | DRAIN]
    + [BACK] * (READ_ROWS - DRAIN_UNIT - 1)
    + [READER << k for k in range(WRITE - READ_ROWS)]
    + [WRITER],
    np.int64,
)
"""By receiver: the part that takes its packets; parameters are fetched under the drain's."""
assert len(PART_OF) == UNITS and PART_OF[WRITE] == WRITER

UNITS_OF = np.array(
    [
        sum(1 << u for u in range(UNITS) if parts & (PART_OF[u] | RECEIVERS))
        for parts in range(ALL + 1)
    ],
    np.int64,
)
"""By set of parts that are awake: the receivers that may move."""

BEFORE_WORDS = 1 << 12
BEFORE = np.dtype([("words", INT, (BEFORE_WORDS,))])
"""Registers of the part that is being moved, as they were."""


@part
def keep(before, at, record):
    """Note the registers of a part before its edge, from place ``at`` on; return the next place."""
    for k in range(len(record.flat)):
        before.words[at + k] = record.flat[k]
    return at + len(record.flat)


@part
def changed(before, at, record):
    """Whether the edge has changed a register."""
    differ = 0
    for k in range(len(record.flat)):
        differ |= before.words[at + k] ^ record.flat[k]
    return differ != 0
