"""Routers (blocks.router): which beat moves from which input to which outputs.

Sets of inputs or outputs are numbers with one bit each, as in the block. The links are the output
registers of their sources; ``column.input_link`` finds that of an input.
"""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.state import INT, LINK, Record
from neuflow.layout import RouterIn, RouterOut

INPUTS, OUTPUTS = len(RouterIn), len(RouterOut)

LOWEST = np.array([(n & -n).bit_length() - 1 for n in range(1 << OUTPUTS)], np.int64)
"""The lowest member of a set; ``n & (n - 1)`` is the set without it."""

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
        *((name, INT) for name in ("inputs", "outputs", "depth")),  # what exists; config_queue
        *((name, INT) for name in ("held", "waits")),  # outputs under a word, with one that waits
        ("current", INT, (INPUTS,)),  # by input: outputs whose current word names it
        ("waiting", INT, (INPUTS,)),  # by input: outputs whose waiting word names it
        ("peers", INT, (INPUTS,)),  # by input: all outputs of its packet
        ("active", INT),  # inputs that a current word names
        ("room", INT),  # outputs whose slice takes a beat
        ("occupied", INT),  # outputs whose slice holds one
        *((name, INT) for name in ("moving", "done")),  # wires: outputs; done: with the last beat
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
def router_bus_ready(r, output, input_, peers):
    """Whether the router takes this ROUTE word (``bus.ready``); from registers alone."""
    target = (1 << output) & r.outputs
    if target & (r.waits if r.depth == 2 else r.held):
        return 0
    if input_ < INPUTS and r.inputs >> input_ & 1:
        names = (peers & r.outputs) | target
        if (r.current[input_] | r.waiting[input_]) != 0 and names != r.peers[input_]:
            return 0
    return 1


@part
def router_input(r, i, link):
    """Move the beat at input ``i``, if all its outputs are under its word and have room."""
    current = r.current[i]
    link.ready = link.valid and (r.peers[i] & ~(current & r.room)) == 0
    if link.ready:
        r.moving |= current
        if link.last:
            r.done |= current
        while current:
            out = r.out[LOWEST[current]]
            out.i_count, out.i_last = link.count, link.last
            current &= current - 1


@part
def _queues_edge(r, route):
    """``Router._build_queues``: words come, outputs that are done go on with the next."""
    done, held = r.done, r.held
    direct = queued = 0
    if route.take and route.input < INPUTS and r.inputs >> route.input & 1:
        target = (1 << route.output) & r.outputs
        direct = target & (~held | done)
        queued = target & held & ~done
        if target:
            r.peers[route.input] = (route.peers & r.outputs) | target
    r.held = (held & ~done) | (r.waits & done) | direct
    r.waits = (r.waits & ~done) | queued
    r.active = 0
    for i in range(INPUTS):
        r.current[i] = (r.current[i] & ~done) | (r.waiting[i] & done)
        r.waiting[i] &= ~done
        if i == route.input:
            r.current[i] |= direct
            r.waiting[i] |= queued
        if r.current[i]:
            r.active |= 1 << i


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
    """Move the registers; ``route``: the ROUTE word of this cycle."""
    if route.take or r.done:
        _queues_edge(r, route)
        r.done = 0
    busy = r.occupied | r.moving
    while busy:
        _slice_edge(r, busy & -busy, r.out[LOWEST[busy]])
        busy &= busy - 1
    r.moving = 0
