"""The control unit (blocks.control, blocks.fetcher, blocks.counters)."""

from __future__ import annotations

import numpy as np

from neuflow.cycle.compiled import part
from neuflow.cycle.parts import QUEUE, queue_at, queue_clear, queue_edge
from neuflow.cycle.state import INT, MAX_COLUMNS, overlaid, record
from neuflow.grid import GridConfig
from neuflow.layout import Activity, Cause, Error, Kind, Opcode, Relocate

PAGE_WORDS = 2048
DECODE, PAYLOAD, STEPS, FRAME = range(4)
_CONFIG, _FENCE, _END = int(Opcode.CONFIG), int(Opcode.FENCE), int(Opcode.END)
_WRITE = int(Kind.WRITE)
_ILLEGAL, _READ_RESPONSE = int(Error.ILLEGAL_INSTRUCTION), int(Error.READ_RESPONSE)
_WRITE_RESPONSE, _HANG = int(Error.WRITE_RESPONSE), int(Error.HANG)
_PROGRAM, _INPUT, _OUTPUT = int(Relocate.PROGRAM), int(Relocate.INPUT), int(Relocate.OUTPUT)
_WORD = 0xFFFF_FFFF
IDLE_TILE = int(Cause.IDLE_TILE)
_DEPENDENCY, _CONFIGURATION = int(Cause.DEPENDENCY), int(Cause.CONFIGURATION)

FETCHER = np.dtype(
    [
        *[(name, INT) for name in ("beat", "under_way", "drop", "wanted", "index")],
        ("buffer", QUEUE),  # value: error
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
            "there", "at_error",  # a word is at hand, it came with an error
            "word", "bus_word",  # that word, and what the bus carries for it
            "hang", "fault",  # registers of Counters and of Control
            "waits",  # the next cycle is as this one, as long as nobody answers
            # wires
            "restart", "enable", "moves", "next_frame", "fence_waits", "illegal", "config_valid",
            "config_word", "config_base", "config_moves", "fetch_ready",
        )],
        ("waiting", INT, (MAX_COLUMNS,)),
        ("pending", INT, (MAX_COLUMNS,)),  # ``waiting`` of a cycle ago
    ]
)  # fmt: skip
"""control.Sequencer. The word at hand is number ``program_counter`` of the program: words come in order,
so the fetcher's need no number. The kernel looks it up. What the block registers although it has been
steady for long (``last_frame``, ``wraps``) is worked out when it is used."""

COUNTERS = overlaid(
    record(
        "progress",
        "tapped",  # an array issued a tap in the cycle before
        "host_watchdog", "quiet", "cycles", "config_words", "config_stalls", "fence_stalls",
        "read_beats", "write_beats", "config_hidden",
    )
)  # fmt: skip
"""counters.Counters, but for the sums of activity, which ``figures`` counts."""


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
    s, grid = m.sequencer, m.grid
    if s.waits and (s.state == DECODE or not config_ready):
        return
    s.waits = 0
    _clear_wires(s)
    last_frame = s.frames_done + 1 >= s.host_frames
    s.enable = not (last_frame and s.state == FRAME)
    if s.fault == 0:
        if s.state == DECODE:
            if s.there:
                _decode(s, grid)
        elif s.state == PAYLOAD:
            _payload(s, config_ready)
        elif s.state == STEPS:
            s.moves = s.there
            s.restart = s.moves != 0 and s.steps != 0
        else:
            s.next_frame = 1
            for c in range(grid.columns):
                if s.pending[c]:
                    s.next_frame = 0
    s.fetch_ready = s.there == 0 or s.moves != 0


@part
def _decode(s, grid):
    """State DECODE, with a word at hand."""
    word = s.word
    opcode = word & 15
    known = (opcode == _CONFIG and word >> 20 & 0xFF != 0) or opcode == _FENCE or opcode == _END
    named = word >> 12 & 0xFF
    s.illegal = not known or named >> grid.columns != 0 or word >> 31 != 0
    passes = True
    if opcode == _FENCE:
        for c in range(grid.columns):
            if named >> c & 1 and s.pending[c] > word >> 30 & 1:
                passes = False
    s.moves = s.illegal == 0 and passes
    s.fence_waits = s.illegal == 0 and not passes


@part
def _payload(s, config_ready):
    """State PAYLOAD: the word goes to the bus."""
    s.config_valid = s.there != 0 and s.at_error == 0
    s.moves = s.there != 0 and config_ready
    if s.config_valid == 0:
        return
    s.config_word = s.bus_word | (s.left == 1)
    if s.first:
        base = 0
        if s.held_relocate == _PROGRAM:
            base = s.host_program * PAGE_WORDS
        elif s.held_relocate == _INPUT:
            base = s.input_base
        elif s.held_relocate == _OUTPUT:
            base = s.output_base
        s.held_base = (s.word + base) & _WORD
    s.config_base = s.held_base
    s.config_moves = config_ready


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
def _fault_edge(m):
    """Registers of blocks.control.Control and, for ``hang``, blocks.counters.Counters."""
    s, n = m.sequencer, m.counters
    if m.arbiter.read_error or m.scratchpad.read_error:
        s.fault = _READ_RESPONSE
    elif m.arbiter.write_error or m.scratchpad.write_error:
        s.fault = _WRITE_RESPONSE
    elif s.hang:
        s.fault = _HANG
    s.hang = n.host_watchdog != 0 and n.quiet >= n.host_watchdog


@part
def sequencer_edge(m):
    """Registers of blocks.control.Sequencer. Call it before the fetcher's edge."""
    s, grid = m.sequencer, m.grid
    stays = s.there and not s.moves and (s.state == DECODE or s.state == PAYLOAD)
    for c in range(grid.columns):
        if m.writers[c].done or s.pending[c] != s.waiting[c]:
            stays = False
    if not (stays and s.waits):
        _sequencer_moves(m)
    _fault_edge(m)
    s.waits = stays and not (s.at_error or s.illegal or s.fault or m.tiles.plain)


@part
def _sequencer_moves(m):
    """The edge of a sequencer that does not wait as it did."""
    s, grid, buffer = m.sequencer, m.grid, m.fetcher.buffer
    error = s.fault
    if error == 0 and s.there and s.at_error and s.state != FRAME:
        error = _READ_RESPONSE
    elif error == 0 and s.illegal:
        error = _ILLEGAL

    for c in range(grid.columns):
        s.pending[c] = s.waiting[c]
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
    if error:
        s.busy = 0
        s.error = error
    if s.restart:
        s.there = 0
    elif s.fetch_ready:
        s.there = buffer.valid
        s.at_error = buffer.value


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
def fetcher_edge(m):
    """blocks.fetcher.Fetcher."""
    f, s, grid, a = m.fetcher, m.sequencer, m.grid, m.arbiter
    burst = grid.burst_beats
    asked = a.read_grant == 3 * grid.columns
    arrives = a.response_port == 3 * grid.columns
    moves = f.buffer.valid != 0 and s.fetch_ready != 0
    ends = f.index == grid.bus_words // 2 - 1
    fits = f.under_way + f.buffer.level <= burst  # the depth is two bursts
    left = f.under_way - arrives
    f.under_way = left + (burst if asked else 0)
    queue_edge(f.buffer, m.store, arrives and f.drop == 0, a.response_error, moves and ends)
    if f.wanted:
        fits = not asked
    f.wanted = s.enable != 0 and s.restart == 0 and fits
    if s.restart:
        queue_clear(f.buffer)
        f.beat = s.host_program * PAGE_WORDS // grid.bus_words
        f.drop = f.under_way
        f.index = 0
        return
    if asked:
        f.beat += burst
    if arrives and f.drop:
        f.drop -= 1
    if moves:
        f.index = 0 if ends else f.index + 1


@part
def outside_cause(s):
    """Why a tile without work has none (``Control._build_cause``)."""
    if s.config_valid and s.config_moves == 0:
        return IDLE_TILE
    return _DEPENDENCY if s.fence_waits or s.state == FRAME else _CONFIGURATION


@part
def counters_edge(m, activity):
    """blocks.counters.Counters; ``activity``: the columns' flags, ORed.

    The block registers events before it counts them, and sees the activity a cycle late; as the
    grid is read when it rests, that shows in the watchdog alone.
    """
    n, s, a = m.counters, m.sequencer, m.arbiter
    n.cycles += 1
    n.config_words += s.config_moves
    n.config_stalls += s.config_valid - s.config_moves
    n.fence_stalls += s.fence_waits
    n.read_beats += a.read_beat
    n.write_beats += a.write_beat
    taps = activity >> _MAC & 1 != 0
    n.config_hidden += s.config_moves != 0 and taps
    n.quiet = 0 if n.progress else n.quiet + 1
    n.progress = (
        s.config_moves != 0 or a.read_beat != 0 or a.write_beat != 0 or n.tapped != 0
    )
    n.tapped = taps


_MAC = int(Activity.MAC)
