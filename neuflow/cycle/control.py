"""The control unit (blocks.control, blocks.fetcher, blocks.counters)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.parts import QUEUE, queue_at, queue_clear, queue_edge
from neuflow.cycle.state import INT, MAX_COLUMNS, record
from neuflow.grid import GridConfig
from neuflow.layout import Activity, Error, Kind, Opcode, Relocate

PAGE_WORDS = 2048
DECODE, PAYLOAD, STEPS, FRAME = range(4)
_CONFIG, _FENCE, _END = int(Opcode.CONFIG), int(Opcode.FENCE), int(Opcode.END)
_WRITE = int(Kind.WRITE)
_ILLEGAL, _READ_RESPONSE = int(Error.ILLEGAL_INSTRUCTION), int(Error.READ_RESPONSE)
_WRITE_RESPONSE, _HANG = int(Error.WRITE_RESPONSE), int(Error.HANG)
_PROGRAM, _INPUT, _OUTPUT = int(Relocate.PROGRAM), int(Relocate.INPUT), int(Relocate.OUTPUT)
_WORD = 0xFFFF_FFFF

FETCHER = np.dtype(
    [
        *[(name, INT) for name in ("beat", "under_way", "drop", "index")],
        ("buffer", QUEUE),  # value: error
        ("request_valid", INT),  # wire
    ]
)
"""fetcher.Fetcher."""

SEQUENCER = np.dtype(
    [
        *[(name, INT) for name in (
            "host_program", "host_input", "host_output", "host_frames", "host_ring",
            "state", "busy", "error", "frames_done", "program_counter", "left", "first", "steps",
            "held_relocate", "held_base", "input_step", "output_step", "input_base", "output_base",
            "ring_index",
            "word", "bus_word",  # the word at hand, and what the bus carries for it
            # wires
            "restart", "enable", "moves", "next_frame", "fence_waits", "illegal", "config_valid",
            "config_word", "config_base", "config_moves", "fault",
        )],
        ("waiting", INT, (MAX_COLUMNS,)),
    ]
)  # fmt: skip
"""control.Sequencer. The word at its input is number ``program_counter`` of the program: words come in
order, so the fetcher's need no number. The kernel looks it up."""

COUNTERS = record(
    "host_watchdog", "quiet", "cycles", "config_words", "config_stalls", "fence_stalls",
    "read_beats", "write_beats", "idle_cycles",
)  # fmt: skip
"""counters.Counters, but for the sums of activity bits, which the kernel counts."""


def reset_fetcher(grid: GridConfig, fetcher: np.void, at: int) -> int:
    """Place its queue; return the next free place of the store."""
    return queue_at(fetcher["buffer"], at, 2 * grid.burst_beats)


@part
def start(m):
    """The cycle of the start bit: the last one in which the grid is not busy."""
    s, f = m.sequencer, m.fetcher
    s.busy = 1
    s.input_base = s.host_input * PAGE_WORDS & _WORD
    s.output_base = s.host_output * PAGE_WORDS & _WORD
    f.beat = s.host_program * PAGE_WORDS // m.grid.bus_words


@part
def sequencer_wires(m, config_ready):
    """blocks.control.Sequencer: what happens to the word at hand."""
    s, f, grid = m.sequencer, m.fetcher, m.grid
    _clear_wires(s)
    last_frame = s.frames_done + 1 >= s.host_frames
    s.enable = not (last_frame and s.state >= STEPS)
    s.fault = _fault(m)
    if s.fault:
        return
    valid = f.buffer.valid
    error = f.buffer.value
    word = s.word

    if s.state == DECODE:
        if valid == 0:
            return
        opcode = word & 15
        known = (opcode == _CONFIG and word >> 20 & 0xFF != 0) or opcode == _FENCE or opcode == _END
        named = word >> 12 & 0xFF
        s.illegal = not known or named >> grid.columns != 0 or word >> 30 != 0
        passes = True
        if opcode == _FENCE:
            for c in range(grid.columns):
                if named >> c & 1 and s.waiting[c]:
                    passes = False
        s.moves = s.illegal == 0 and passes
        s.fence_waits = s.illegal == 0 and not passes
    elif s.state == PAYLOAD:
        s.config_valid = valid != 0 and error == 0
        s.moves = valid != 0 and config_ready
        if s.config_valid:
            s.config_word = s.bus_word | (s.left == 1)
            if s.first:
                base = 0
                if s.held_relocate == _PROGRAM:
                    base = s.host_program * PAGE_WORDS
                elif s.held_relocate == _INPUT:
                    base = s.input_base
                elif s.held_relocate == _OUTPUT:
                    base = s.output_base
                s.held_base = (word + base) & _WORD
            s.config_base = s.held_base
            s.config_moves = config_ready
    elif s.state == STEPS:
        s.moves = valid
        s.restart = s.moves != 0 and s.steps != 0
    else:
        s.next_frame = 1
        for c in range(grid.columns):
            if s.waiting[c]:
                s.next_frame = 0


@part
def _clear_wires(s):
    s.restart = 0
    s.moves = 0
    s.next_frame = 0
    s.fence_waits = 0
    s.illegal = 0
    s.config_valid = 0
    s.config_moves = 0


@part
def _fault(m):
    """layout.Error from outside the sequencer."""
    if m.arbiter.read_error:
        return _READ_RESPONSE
    if m.arbiter.write_error:
        return _WRITE_RESPONSE
    if m.counters.host_watchdog != 0 and m.counters.quiet >= m.counters.host_watchdog:
        return _HANG
    return 0


@part
def sequencer_edge(m):
    """Registers of blocks.control.Sequencer."""
    s, grid = m.sequencer, m.grid
    held_error = s.fault == 0 and m.fetcher.buffer.valid and m.fetcher.buffer.value
    code_of_error = s.fault
    if code_of_error == 0 and held_error and s.state != FRAME:
        code_of_error = _READ_RESPONSE
    elif code_of_error == 0 and s.illegal:
        code_of_error = _ILLEGAL

    for c in range(grid.columns):
        s.waiting[c] -= m.writers[c].done
    if s.next_frame:
        over = s.ring_index + 1 == s.host_ring
        s.ring_index = 0 if over else (s.ring_index + 1) & _WORD
        s.input_base = s.host_input * PAGE_WORDS if over else s.input_base + s.input_step
        s.output_base = s.host_output * PAGE_WORDS if over else s.output_base + s.output_step
        s.input_base &= _WORD
        s.output_base &= _WORD
        s.frames_done += 1
        s.program_counter = 0
        s.state = DECODE
        if s.frames_done >= s.host_frames:
            s.busy = 0
    elif s.moves:
        if not (s.state == STEPS and s.steps):
            s.program_counter += 1
        _move(s, grid)
    if code_of_error:
        s.busy = 0
        s.error = code_of_error


@part
def _move(s, grid):
    """The word at hand is used up."""
    word = s.word
    if s.state == DECODE:
        opcode = word & 15
        s.left = word >> 20 & 0xFF
        s.held_relocate = word >> 28 & 3
        s.first = 1
        s.steps = 0
        if opcode == _CONFIG:
            s.state = PAYLOAD
            if word >> 4 & 15 == _WRITE:
                for c in range(grid.columns):
                    s.waiting[c] += word >> (12 + c) & 1
        elif opcode == _END:
            s.state = STEPS
    elif s.state == PAYLOAD:
        s.left -= 1
        s.first = 0
        if s.left == 0:
            s.state = DECODE
    else:
        s.input_step = s.output_step
        s.output_step = word
        if s.steps:
            s.state = FRAME
        s.steps = 1


@part
def fetcher_wires(m):
    """blocks.fetcher.Fetcher: ask for a burst while there is room for it."""
    f, s, burst = m.fetcher, m.sequencer, m.grid.burst_beats
    room = f.under_way + f.buffer.level <= burst  # depth is two bursts
    f.request_valid = s.enable != 0 and s.restart == 0 and room


@part
def fetcher_edge(m):
    """Registers of blocks.fetcher.Fetcher."""
    f, s, grid, a = m.fetcher, m.sequencer, m.grid, m.arbiter
    asked = a.read_grant == 3 * grid.columns
    arrives = a.fetch_beat
    ends = f.index == grid.bus_words // 2 - 1
    left = f.under_way - arrives
    queue_edge(f.buffer, m.store, arrives != 0 and f.drop == 0, a.r_error, s.moves != 0 and ends)
    f.under_way = left + (grid.burst_beats if asked else 0)
    if s.restart:
        queue_clear(f.buffer)
        f.beat = s.host_program * PAGE_WORDS // grid.bus_words
        f.drop = left
        f.index = 0
        return
    if asked:
        f.beat += grid.burst_beats
    if arrives and f.drop:
        f.drop -= 1
    if s.moves:
        f.index = 0 if ends else f.index + 1


@part
def counters_edge(m, activity, all_idle):
    """blocks.counters.Counters; ``activity``: the columns' bits, ORed."""
    n, s, a = m.counters, m.sequencer, m.arbiter
    n.cycles += 1
    n.config_words += s.config_moves
    n.config_stalls += s.config_valid - s.config_moves
    n.fence_stalls += s.fence_waits
    n.read_beats += a.read_beat
    n.write_beats += a.write_beat
    n.idle_cycles += all_idle
    progress = s.config_moves != 0 or a.read_beat != 0 or a.write_beat != 0
    if progress or activity >> _MAC & 1:
        n.quiet = 0
    else:
        n.quiet += 1


_MAC = int(Activity.MAC)
