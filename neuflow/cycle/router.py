"""Routers (blocks.router): which beat moves from which input to which outputs.

Sets of inputs or outputs are numbers with one bit each, as in the block. The links are the output
registers of their sources; ``column.input_link`` finds that of an input.
"""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import lowest, part
from neuflow.cycle.state import INT, LINK, ROUTE_WORD, Record
from neuflow.layout import RouterIn, RouterOut

INPUTS, OUTPUTS = len(RouterIn), len(RouterOut)

OUT = np.dtype(
    [
        ("o", LINK),  # the output register, what the next tile sees
        *((name, INT) for name in ("spare_count", "spare_last")),
        *((name, INT) for name in ("i_count", "i_last")),  # wires: the beat that comes in
    ]
)
"""The register slice (streams.Slice) at an output."""

ROUTER = np.dtype(
    [
        # What tells whether the router rests, close together.
        *((name, INT) for name in ("active", "armed", "ended")),  # inputs; active: current is not 0
        ("occupied", INT),  # outputs whose slice holds a beat
        ("room", INT),  # outputs whose slice takes one
        *((name, INT) for name in ("moving", "last")),  # wires: outputs, inputs
        # ROUTE words that have come (a streams.Slice), and whether the first is taken now.
        *((name, INT) for name in ("word_valid", "spare_valid", "take")),
        ("unsettled", INT),  # what arms an input has changed
        *((name, INT) for name in ("inputs", "outputs", "depth")),  # what exists; config_queue
        *((name, INT) for name in ("held", "waits")),  # outputs under a word, with one that waits
        ("current", INT, (INPUTS,)),  # by input: outputs whose current word names it
        ("peers", INT, (INPUTS,)),  # by input: all outputs of its packet
        ("waiting", INT, (INPUTS,)),  # by input: outputs whose waiting word names it
        ("word", ROUTE_WORD),
        ("spare", ROUTE_WORD),
        ("out", OUT, (OUTPUTS,)),
    ]
)
"""blocks.router.Router."""


def reset_router(router: Record, inputs: int, outputs: int, depth: int) -> None:
    """Put a router with these ports (one bit each) into its state after reset."""
    router["inputs"], router["outputs"], router["depth"] = inputs, outputs, depth
    router["peers"] = outputs
    router["room"] = outputs


@part
def router_bus_ready(r):
    """Whether the router takes another ROUTE word; if not, words for others wait too."""
    return r.spare_valid == 0


@part
def router_rests(r):
    """Whether nothing changes at an edge unless a beat moves or a ROUTE word comes."""
    return not (r.occupied or r.word_valid or r.ended or r.unsettled)


@part
def router_input(r, i, link):
    """Move the beat at input ``i``, which is armed, if all its outputs have room."""
    link.ready = link.valid and (r.peers[i] & ~r.room) == 0
    if link.ready:
        current = r.current[i]
        r.moving |= current
        if link.last:
            r.last |= 1 << i
        while current:
            out = r.out[lowest(current)]
            out.i_count, out.i_last = link.count, link.last
            current &= current - 1


@part
def _arm(r):
    """Which inputs may move from the next cycle on."""
    r.armed = 0
    active = r.active & ~(r.last | r.ended)
    while active:
        i = lowest(active)
        if r.peers[i] & ~r.current[i] == 0:
            r.armed |= 1 << i
        active &= active - 1


@part
def _target(r):
    """The output that the first word is for, as a set; empty if it or the input does not exist."""
    word = r.word
    if word.input < INPUTS and r.inputs >> word.input & 1:
        return (1 << word.output) & r.outputs
    return 0


@part
def _may_take(r, target):
    """Whether the first word has room, and no other packet of its input is here."""
    if not r.word_valid or r.take or target & (r.waits if r.depth == 2 else r.held):
        return 0
    i = r.word.input
    if i < INPUTS and r.inputs >> i & 1:
        names = (r.word.peers & r.outputs) | target
        if (r.current[i] | r.waiting[i]) != 0 and names != r.peers[i]:
            return 0
    return 1


@part
def _queues_edge(r, target, done):
    """A word is taken, outputs that are done go on with the next."""
    word, held = r.word, r.held
    direct = queued = 0
    if r.take:
        direct = target & (~held | done)
        queued = target & held & ~done
        if target:
            r.peers[word.input] = (word.peers & r.outputs) | target
    r.held = (held & ~done) | (r.waits & done) | direct
    r.waits = (r.waits & ~done) | queued
    r.active = 0
    for i in range(INPUTS):
        r.current[i] = (r.current[i] & ~done) | (r.waiting[i] & done)
        r.waiting[i] &= ~done
        if i == word.input:
            r.current[i] |= direct
            r.waiting[i] |= queued
        if r.current[i]:
            r.active |= 1 << i


@part
def _copy(to, word):
    to.output, to.input, to.peers = word.output, word.input, word.peers


@part
def _words_edge(r, route):
    """streams.Slice of ROUTE words; ``take`` is its ``o.ready``."""
    if not r.word_valid or r.take:
        if r.spare_valid:
            _copy(r.word, r.spare)
            r.spare_valid = 0
            r.word_valid = 1
        else:
            _copy(r.word, route)
            r.word_valid = route.take
    elif route.take:
        _copy(r.spare, route)
        r.spare_valid = 1


@part
def _control_edge(r, route):
    """Words and the ends of packets. Return whether a register may have changed."""
    ended = r.ended
    done = 0
    while ended:
        done |= r.current[lowest(ended)]
        ended &= ended - 1
    changes = r.last | r.ended | r.unsettled
    if changes:
        _arm(r)
    r.unsettled = r.last | r.ended
    r.ended = r.last
    r.last = 0
    if r.word_valid or route.take or done:
        target = _target(r)
        takes = _may_take(r, target)
        if r.take or done:
            _queues_edge(r, target, done)
            r.unsettled = 1
        _words_edge(r, route)
        changes |= r.take | takes | done | route.take
        r.take = takes
    return changes


@part
def _slice_edge(r, bit, out):
    """streams.Slice at one output."""
    o = out.o
    comes = r.moving & bit
    if o.valid == 0 or o.ready:
        if r.room & bit == 0:
            o.count, o.last = out.spare_count, out.spare_last
            r.room |= bit
            o.valid = 1
        else:
            o.count, o.last = out.i_count, out.i_last
            o.valid = comes != 0
    elif comes:
        out.spare_count, out.spare_last = out.i_count, out.i_last
        r.room &= ~bit
    o.ready = 0
    if o.valid:
        r.occupied |= bit
    else:
        r.occupied &= ~bit


@part
def router_edge(r, route):
    """Move the registers; ``route``: the ROUTE word. Return whether one may have changed."""
    changes = _control_edge(r, route) | r.moving
    busy = r.occupied | r.moving
    while busy:
        out = r.out[lowest(busy)]
        changes |= out.o.ready
        _slice_edge(r, busy & -busy, out)
        busy &= busy - 1
    r.moving = 0
    return changes != 0
