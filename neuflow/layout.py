"""Bit layouts, said once: configuration words, program instructions, registers, error codes.

Gates read them through :meth:`Layout.shape`, the assembler through :meth:`Layout.pack`, the
disassembler through :meth:`Layout.unpack`, the documentation through :func:`to_markdown` and the
host's C header through :func:`to_header`. Field 0 is the least significant; a layout is sent as
little-endian 32-bit words, and the last word is padded with zeros.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

CONFIG_BITS = 32
"""Width of the configuration bus and of a program word, bits."""

COLUMN_BITS = 8
"""Columns a configuration packet can address at once (one bit each), hence columns of a grid."""


@dataclass(frozen=True)
class Field:
    """One field: ``bits`` wide, two's complement when ``signed``; ``doc`` gives meaning and unit."""

    name: str
    bits: int
    doc: str
    signed: bool = False

    def encode(self, value: int, owner: str) -> int:
        """Return the field's bits for ``value``; raise ``ValueError`` when it does not fit."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        high = (1 << (self.bits - self.signed)) - 1
        if not low <= value <= high:
            raise ValueError(f"{owner}.{self.name} = {value} is not within {low}..{high}")
        return value & ((1 << self.bits) - 1)

    def decode(self, raw: int) -> int:
        """Inverse of :meth:`encode`."""
        if self.signed and raw >> (self.bits - 1):
            return raw - (1 << self.bits)
        return raw


@dataclass(frozen=True)
class Layout:
    """A packed record, field 0 least significant."""

    name: str
    doc: str
    fields: tuple[Field, ...]

    @cached_property
    def bits(self) -> int:
        """Sum of the fields' widths."""
        return sum(field.bits for field in self.fields)

    @cached_property
    def words(self) -> int:
        """32-bit words it takes on the configuration bus."""
        return -(-self.bits // CONFIG_BITS)

    def pack_int(self, values: Mapping[str, int]) -> int:
        """Return the record as one integer. Every field must be given, and must fit."""
        unknown = set(values) - {field.name for field in self.fields}
        missing = {field.name for field in self.fields} - set(values)
        if unknown or missing:
            raise ValueError(
                f"{self.name}: unknown fields {sorted(unknown)}, missing {sorted(missing)}"
            )
        raw = offset = 0
        for field in self.fields:
            raw |= field.encode(int(values[field.name]), self.name) << offset
            offset += field.bits
        return raw

    def pack(self, **values: int) -> list[int]:
        """Return the record as 32-bit words, least significant first."""
        raw = self.pack_int(values)
        return [(raw >> (CONFIG_BITS * i)) & 0xFFFF_FFFF for i in range(self.words)]

    def unpack(self, words: Sequence[int]) -> dict[str, int]:
        """Inverse of :meth:`pack`."""
        raw = sum(int(word) << (CONFIG_BITS * i) for i, word in enumerate(words))
        values = {}
        for field in self.fields:
            values[field.name] = field.decode(raw & ((1 << field.bits) - 1))
            raw >>= field.bits
        return values

    def shape(self) -> Any:
        """Return the same record as an ``amaranth.lib.data.StructLayout``."""
        from amaranth.hdl import signed, unsigned
        from amaranth.lib import data

        return data.StructLayout(
            {f.name: signed(f.bits) if f.signed else unsigned(f.bits) for f in self.fields}
        )


def _u(name: str, bits: int, doc: str) -> Field:
    return Field(name, bits, doc)


def _s(name: str, bits: int, doc: str) -> Field:
    return Field(name, bits, doc, signed=True)


# --- units on the configuration bus -------------------------------------------------------------


class Kind(enum.IntEnum):
    """What a configuration packet is for; ``sub`` tells several of one kind in a column apart."""

    CONV_ROWS = 0  # row input of the convolver
    CONV_WEIGHTS = 1  # weight input of the convolver
    CONV_ARRAY = 2  # multiply-accumulate array
    CONV_DRAIN = 3  # requantiser and reorder buffer
    ALU = 4  # term-by-term operator; sub = its number in the tile
    WINDOW = 5  # window reduction
    MAPPER = 6  # piecewise function
    ROUTER = 7  # one word an output; sub = row of the tile in its column
    READ_ROWS = 8  # DMA read port of the rows line
    READ_WEIGHTS = 9  # DMA read port of the weights line
    READ_OPERAND = 10  # DMA read port of the operand line
    WRITE = 11  # DMA write port


class Row(enum.IntEnum):
    """Tiles of a column from north to south; FIFO tiles fill the rows from ``FIFO`` on."""

    CONVOLVER = 0
    OPERATOR = 1
    MAPPER = 2
    FIFO = 3


class RouterIn(enum.IntEnum):
    """Inputs of a router: the four neighbours, the global line from the DMA, local results."""

    NORTH = 0
    EAST = 1
    SOUTH = 2
    WEST = 3
    GLOBAL = 4
    LOCAL0 = 5
    LOCAL1 = 6
    LOCAL2 = 7


class RouterOut(enum.IntEnum):
    """Outputs of a router: the four neighbours, the global line to the DMA, local operands."""

    NORTH = 0
    EAST = 1
    SOUTH = 2
    WEST = 3
    GLOBAL = 4
    LOCAL0 = 5
    LOCAL1 = 6
    LOCAL2 = 7
    LOCAL3 = 8
    LOCAL4 = 9


class AluOp(enum.IntEnum):
    """Operation of a term-by-term operator."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5
    ABS = 6
    SQUARE = 7


class WindowOp(enum.IntEnum):
    """Reduction of a window."""

    MAX = 0
    SUM = 1


ROW_ADDRESS = 20  # bits of an address in a row buffer, words
SIZE = 16  # bits of an extent: width, height, channels
LANE_BITS = 6  # bits of a number of lanes or maps of an array: below 64 each


class Scatter(enum.IntEnum):
    """How words of a row are stored (field ``scatter`` of CONV_ROWS)."""

    ROW = 0  # up to a beat a cycle, contiguous in x; stride and x_step are 1
    WORD = 1  # one word a cycle, x_step apart; stride is 1
    PHASES = 2  # of each beat a phase in x a cycle; x_step is 1, stride 2 or more
    FIRST_PHASE = 3  # of each beat only words of phase 0 in x; every record is of phase 0 in y
    BOTH_PHASES = 4  # up to a beat a cycle, of both phases in x; x_step is 1, stride 2, no ring
    ROWS = 5  # as ROW, of two channels' rows; channel_step is width modulo the banks, no ring


CONV_ROWS = Layout(
    "CONV_ROWS",
    "Where arriving rows are stored. Order of the stream: for y: for channel: for x.",
    (
        _u("source", 3, "column whose rows line is listened to"),
        _u("ahead", 1, "1: may be stored while the array still computes the pass before"),
        _u("two", 1, "1: they come as two packets, each of whole row records"),
        _u("scatter", 3, "Scatter: which words of a beat are stored in one cycle, and where"),
        _u("width", SIZE + 4, "words of a row of one channel"),
        _u("channels", SIZE, "channels of a row record"),
        _u("rows", SIZE, "row records in the packet; 0: none comes, the rows of the pass before stay"),
        _u("base", ROW_ADDRESS, "address of channel 0, phase 0, row 0, words"),
        _u("channel_step", ROW_ADDRESS, "from a channel to the next, words"),
        _u("ring_words", ROW_ADDRESS, "length of a channel's ring of rows; 0: it never wraps"),
        _u("pitch", ROW_ADDRESS, "from a stored row to the next of the same phase, words"),
        _u("ring_rows", SIZE, "row records that may be stored and not yet released"),
        _u("stride", 4, "phases in x and in y: word (y, x) goes to phase (y % s, x % s)"),
        _u("x_step", ROW_ADDRESS, "from a word to the next of the same phase, words"),
        _u("phase_x_step", ROW_ADDRESS, "from a phase in x to the next, words"),
        _u("phase_y_step", ROW_ADDRESS, "from a phase in y to the next, words"),
    ),
)

CONV_WEIGHTS = Layout(
    "CONV_WEIGHTS",
    "A packet of weights: first the parameters of every map block, then the weights.",
    (
        _u("source", 3, "column whose weights line is listened to"),
        _u("lead", 12, "beats of parameters that lead the packet: CONV_DRAIN.beats of every block"),
    ),
)

PARAMETERS = Layout(
    "PARAMETERS",
    "Parameters of a map in a weights packet: the first CONV_DRAIN.beats of three 32-bit words. Where "
    "a word is not sent, the bias goes on with its sign, m is 1, other fields are 0.",
    (
        _u("bias_low", 29, "bias, two's complement; its highest bit sent is the sign"),
        _u("shift_low", 3, "shift right, less CONV_DRAIN.shift"),
        _u("m", 15, "multiplier"),
        _u("reserved", 1, "0"),
        _u("bias_middle", 13, "bias, goes on"),
        _u("shift_high", 3, "shift, goes on"),
        _s("zero", 16, "offset"),
        _u("bias_high", 6, "bias, goes on"),
    ),
)

CONV_ARRAY = Layout(
    "CONV_ARRAY",
    "One pass of the multiply-accumulate array: for group: for block: for channel: for ky: for kx.",
    (
        _u("groups", 20, "groups of pixels (lanes) along the flattened output map"),
        _u("blocks", 10, "blocks of maps"),
        _u("channels", SIZE + 4, "input channels of a block"),
        _u("by_block", 1, "1: a block reads the channels behind those of the block before"),
        _u("by_tap", 1, "1: the map lanes work on neighbouring taps of one map, a block is a map"),
        _u("gather", 1, "1: by tap, a row's last tap is worked with those of the rows before it"),
        _u("kernel_y", 6, "kernel rows"),
        _u("kernel_x", 6, "kernel columns"),
        _u("pitch", SIZE, "flattened positions of an output row (>= its width)"),
        _u("width", SIZE, "input columns; taps outside are zero"),
        _u("height", SIZE, "input rows; taps outside are zero"),
        _u("stride", 4, "stride in x and y"),
        _s("tap_x", SIZE, "input column of tap 0 for output column 0: -(left padding)"),
        _s("tap_y", SIZE, "input row of tap 0 for output row 0: -(top padding)"),
        _u("dilation_x", 8, "input columns from a tap to the next"),
        _u("dilation_y", 8, "input rows from a tap to the next"),
        _u("base", ROW_ADDRESS, "address of channel 0, phase 0, words"),
        _u("channel_step", ROW_ADDRESS, "from a channel to the next, words"),
        _u("ring_words", ROW_ADDRESS, "length of a channel's ring; 0: linear, never wraps"),
        _u("start", ROW_ADDRESS, "address offset of group 0, tap (0, 0), modulo ring or memory"),
        _u("step_x", ROW_ADDRESS, "address offset from a tap in x to the next, no phase wrap"),
        _u("step_y", ROW_ADDRESS, "address offset from a tap row to the next, no phase wrap"),
        _u("row_pitch", ROW_ADDRESS, "address offset of one stored row: of output row to row, if not pitch"),
        _u("phase_x", 4, "phase in x of tap 0"),
        _u("phase_y", 4, "phase in y of tap 0"),
        _u("phase_dx", 4, "phases in x that a tap advances: dilation_x % stride"),
        _u("phase_dy", 4, "phases in y that a tap advances: dilation_y % stride"),
        _u("phase_x_step", ROW_ADDRESS, "from a phase in x to the next, words"),
        _u("phase_y_step", ROW_ADDRESS, "from a phase in y to the next, words"),
        _s("need", SIZE + 2, "rows a group needs = clip(last y * stride + need, 0, rows)"),
        _s("release", SIZE + 2, "rows a group frees = clip(first y * stride + release, 0, rows)"),
        _u("rows", SIZE, "row records of the pass"),
        _u("stream_weights", 1, "1: each weight is used once and freed at once (one group)"),
        _u("width_out", SIZE, "output columns; for counting, as the two below"),
        _u("height_out", SIZE, "output rows"),
        _u("maps", LANE_BITS, "map lanes with work: in the last block; by_tap: in a row's last step; "
           "by_block: always; gather: in a channel's first step of last taps"),
        _u("absent0", 32, "bit k: channel k + 1 behind the first is stored, but not read"),
        _u("absent1", 28, "bit k: likewise channel k + 33"),
    ),
)

ABSENT_CHANNELS = 60
"""Channels behind the first that a pass may leave out: bits of ``absent0`` and ``absent1``."""

CONV_DRAIN = Layout(
    "CONV_DRAIN",
    "How accumulators leave: requantised rows (y, map, x), or exact partial sums in array order.",
    (
        _u("groups", 20, "as in CONV_ARRAY"),
        _u("blocks", 10, "as in CONV_ARRAY"),
        _u("maps", SIZE, "maps that leave; those of the last block beyond are dropped"),
        _u("pitch", SIZE, "as in CONV_ARRAY"),
        _u("width", SIZE, "output columns"),
        _u("height", SIZE, "output rows"),
        _u("partial_in", 1, "1: add the stream of partial sums (three words a value)"),
        _u("partial_out", 1, "1: send partial sums, not requantised words"),
        _u("narrow", 1, "1: saturate to 8 bits"),
        _u("by_tap", 1, "as in CONV_ARRAY: a result is the sum of the map lanes'"),
        _u("slots", SIZE, "rows a map may hold in the reorder buffer"),
        _u("map_step", ROW_ADDRESS, "reorder words of a map: >= slots * width, and 1 modulo lanes"),
        _u("beats", 2, "words of PARAMETERS that the packet of weights has of each map: 1 to 3"),
        _u("shift", 6, "what is added to the shift of each map"),
    ),
)

ALU = Layout(
    "ALU",
    "ADD, SUB: sat(((a << shift_a) op (b << shift_b) + half) >> shift). MUL, SQUARE: sat((a * b + "
    "half) >> shift). DIV: sat(round_half_away((a << shift_a) / (b << shift_b))), by zero: the end "
    "with a's sign, 0 / 0 = 0. MAX, MIN: of (a << shift_a), (b << shift_b), then as ADD. ABS: "
    "sat(|a| << shift_a, then as ADD).",
    (
        _u("op", 4, "AluOp"),
        _u("shift_a", 6, "left shift of a, 0 to 31"),
        _u("shift_b", 6, "left shift of b, 0 to 31"),
        _u("shift", 6, "right shift of the exact result, 0 to 47"),
        _u("narrow", 1, "1: saturate to 8 bits"),
    ),
)

WINDOW = Layout(
    "WINDOW",
    "Window reduction of rows (y, map, x): sat(((reduce * m + half) >> s) + zero).",
    (
        _u("op", 1, "WindowOp"),
        _u("maps", SIZE, "maps of a row record"),
        _u("width", SIZE, "input columns"),
        _u("height", SIZE, "input rows"),
        _u("width_out", SIZE, "output columns"),
        _u("height_out", SIZE, "output rows"),
        _u("kernel_x", 8, "window columns"),
        _u("kernel_y", 8, "window rows"),
        _u("stride_x", 8, "columns from a window to the next"),
        _u("stride_y", 8, "rows from a window to the next"),
        _u("pad_x", 8, "columns of padding at the left"),
        _u("pad_y", 8, "rows of padding at the top"),
        _u("m", 16, "multiplier, 0 to 32767"),
        _u("s", 6, "shift right"),
        _s("zero", 16, "offset"),
        _u("narrow", 1, "1: saturate to 8 bits"),
    ),
)

SEGMENTS = 8
"""Segments of a mapper table."""

MAPPER = Layout(
    "MAPPER",
    "Piecewise function. x' = |x| under a symmetry, else x. Segment = the last with x' >= min; d = "
    "x' - min; y = (b << shift) + ((a << square) + q * d) * d; out = sat((y + half) >> shift); odd: "
    "the sign of x is put back after rounding and before saturation.",
    (
        _u("odd", 1, "1: f(-x) = -f(x)"),
        _u("even", 1, "1: f(-x) = f(x)"),
        _u("narrow", 1, "1: saturate to 8 bits"),
        _u("shift", 6, "right shift of the exact result, 0 to 40"),
        _u("square", 6, "left shift that brings a to the scale of q * d, 0 to 16"),
        *(
            field
            for i in range(SEGMENTS)
            for field in (
                _s(f"min{i}", 16, f"segment {i} begins here; ascending, segment 0 is -32768"),
                _s(f"b{i}", 17, "value at its beginning, words of the output"),
                _s(f"a{i}", 18, "slope"),
                _s(f"q{i}", 16, "square term"),
            )
        ),
    ),
)

ROUTE = Layout(
    "ROUTE",
    "One router output for one packet. Outputs of one multicast name each other in peers and move "
    "together.",
    (
        _u("output", 4, "RouterOut"),
        _u("input", 4, "RouterIn"),
        _u("peers", 10, "one bit for each output of this multicast, itself included"),
    ),
)

SCRATCHPAD = 1 << 31
"""Word addresses from here on lie in the scratchpad, where a grid has one."""

READ = Layout(
    "READ",
    "A strided read: for i2: for i1: for i0: run contiguous words, packed without gaps.",
    (
        _u("base", 32, "address of the first word, words; bit 31: in the scratchpad"),
        _u("run", 24, "contiguous words"),
        _u("count0", 16, "innermost count"),
        _s("step0", 32, "words"),
        _u("count1", 16, "count"),
        _s("step1", 32, "words"),
        _u("count2", 16, "outermost count"),
        _s("step2", 32, "words"),
        _u("dest", COLUMN_BITS, "rows, weights line: columns that listen. Operand line: see Operand"),
    ),
)

WRITE = Layout(
    "WRITE",
    "A strided write, in the order of READ.",
    (
        *READ.fields[:-1],
        _u("source", 1, "0: global line of the last tile of the column; 1: of its operator tile"),
    ),
)


class Operand(enum.IntEnum):
    """Who takes the operand line (field ``dest`` of READ)."""

    CONVOLVER = 0  # partial sums
    OPERATOR = 1  # global input of the operator tile's router


UNITS: dict[Kind, Layout] = {
    Kind.CONV_ROWS: CONV_ROWS,
    Kind.CONV_WEIGHTS: CONV_WEIGHTS,
    Kind.CONV_ARRAY: CONV_ARRAY,
    Kind.CONV_DRAIN: CONV_DRAIN,
    Kind.ALU: ALU,
    Kind.WINDOW: WINDOW,
    Kind.MAPPER: MAPPER,
    Kind.ROUTER: ROUTE,
    Kind.READ_ROWS: READ,
    Kind.READ_WEIGHTS: READ,
    Kind.READ_OPERAND: READ,
    Kind.WRITE: WRITE,
}
"""What a packet to each kind of unit carries (a ROUTER packet: one ROUTE word an output)."""

CONFIG_BEAT = Layout(
    "CONFIG_BEAT",
    "One word on the configuration bus.",
    (
        _u("kind", 4, "Kind"),
        _u("sub", 4, "which of them in the column"),
        _u("columns", COLUMN_BITS, "columns addressed: one is a unit, several a group, all broadcast"),
        _u("data", CONFIG_BITS, "configuration word"),
        _u("last", 1, "1: last word of the packet"),
    ),
)


# --- program --------------------------------------------------------------------------------------


class Opcode(enum.IntEnum):
    """Instructions of the control unit. 0 is illegal, so that cleared memory stops at once."""

    ILLEGAL = 0
    CONFIG = 1  # a configuration packet follows: ``length`` words
    FENCE = 2  # wait until writes configured so far in ``columns`` are acknowledged, see ``left``
    END = 3  # end of a frame; two words follow: input step, output step, in words


class Relocate(enum.IntEnum):
    """What the control unit adds to the first word of a packet (an address in words)."""

    NONE = 0
    PROGRAM = 1  # the program's address
    INPUT = 2  # address of this frame's inputs
    OUTPUT = 3  # address of this frame's outputs


INSTRUCTION = Layout(
    "INSTRUCTION",
    "First word of every instruction.",
    (
        _u("opcode", 4, "Opcode"),
        _u("kind", 4, "CONFIG: Kind"),
        _u("sub", 4, "CONFIG: which of them in the column"),
        _u("columns", COLUMN_BITS, "CONFIG, FENCE: one bit a column"),
        _u("length", 8, "CONFIG: words that follow"),
        _u("relocate", 2, "CONFIG: Relocate, of the first word"),
        _u("left", 1, "FENCE: 1: it does not wait for the last WRITE packet that was sent to each column"),
        _u("reserved", 1, "0"),
    ),
)


# --- registers of the AXI4-Lite slave ---------------------------------------------------------------


class Cause(enum.IntEnum):
    """What became of a MAC-cycle: one multiplier of one array in one cycle. Each has one cause.

    A tap that is issued splits its ``maps * pixels`` MACs into the first three. Without a tap, all
    of a column's MACs go to the first of the others that holds. Over a run they sum to columns x
    maps x pixels x cycles exactly. ``doc`` says what each is.
    """

    doc: str

    def __new__(cls, value: int, doc: str = "") -> Cause:
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    USEFUL = 0, "a tap: lanes that are output positions, maps that exist; products with zeros are among them"
    EDGE_LANES = 1, "a tap: lanes that are no output position (row ends, end of the last group), all maps"
    MAP_REMAINDER = 2, "a tap: output positions, maps of the last block that do not exist"
    FILL = 3, "the array has a configuration, and the coordinates of its next group are not made yet"
    WAIT_INPUT = 4, "the array waits for rows"
    WEIGHT_LOAD = 5, "the array waits for weights"
    WAIT_OUTPUT = 6, "the array waits for its drain, or has ended before it; the drain is held back"
    OUTPUT_DRAIN = 7, "as WAIT_OUTPUT, but the drain is not held back in this cycle"
    DEPENDENCY = 8, "the tile has no work: a fence, or the end of the frame, waits for writes"
    CONFIGURATION = 9, "the tile has no work: the program is fetched, decoded or sent"
    IDLE_TILE = 10, "the tile has no work: the configuration bus waits for a unit that is busy"


MAC_CAUSES = (Cause.USEFUL, Cause.EDGE_LANES, Cause.MAP_REMAINDER)
"""Causes that share the MACs of a tap; each of the others takes all of a column's."""


@dataclass(frozen=True)
class Register:
    """One 32-bit register: byte ``address``, ``access`` "ro" or "rw"."""

    name: str
    address: int
    access: str
    doc: str


def _cause_registers(address: int) -> list[Register]:
    """Return a register for each cause, two for those that count MACs, from ``address`` on."""
    found: list[Register] = []
    for cause in Cause:
        unit = "MACs" if cause in MAC_CAUSES else "cycles, summed over the columns"
        names = [(cause.name, f"{unit}: {cause.doc}")]
        if cause in MAC_CAUSES:
            names = [(cause.name, f"{names[0][1]}; low word"), (f"{cause.name}_HIGH", "high word")]
        for name, doc in names:
            found.append(Register(name, address + 4 * len(found), "ro", doc))
    return found


IDENTITY = 0x6E65_7546
"""Value of the ID register: "neuF"."""

HARDWARE_VERSION = 0x0002_0000
"""Value of the VERSION register: major << 16 | minor. Minor: registers were added; major: others moved.

2.0: the counters from 0x50 on moved when every MAC-cycle got a cause.
"""

PROGRAM_VERSION = 9
"""Version of the program format: a program of another one is refused.

2: CONV_ROWS stores by phases, CONV_ARRAY reads channels by block and leaves some out.
3: CONV_ARRAY and CONV_DRAIN work by tap; a channel less may be left out.
4: PARAMETERS of a map take one to three beats.
5: CONV_ARRAY gathers last taps of kernel rows; a channel less may be left out;
   tensors of the host section have a scale.
6: the graph has slices, and tensors with a scale for every channel; inputs may leave room in their records.
7: rows may come as two packets; a FENCE may leave out the last WRITE packet of its columns.
8: CONV_ROWS stores both phases of a stride of 2 at once.
9: CONV_ROWS stores rows of two channels at once; layers of the host section tell output words apart.
"""

REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x00, "ro", f'identity, 0x{IDENTITY:08X} ("neuF")'),
    Register("VERSION", 0x04, "ro", "hardware version, major << 16 | minor"),
    Register("GRID_HASH", 0x08, "ro", "first 32 bits of the hash of the grid's parameters"),
    Register("PARAMETERS", 0x0C, "ro", "columns | maps << 8 | pixels << 16 | bus words << 24"),
    Register("CONTROL", 0x10, "rw", "bit 0: start (reads 0); bit 1: interrupt enable"),
    Register("STATUS", 0x14, "rw", "bit 0: busy; bit 1: done (write 1 to clear); bits 15:8: error code"),
    Register("PROGRAM", 0x18, "rw", "address of the device section, in units of 4 KB"),
    Register("INPUT", 0x1C, "rw", "address of the ring of inputs, in units of 4 KB"),
    Register("OUTPUT", 0x20, "rw", "address of the ring of outputs, in units of 4 KB"),
    Register("FRAMES", 0x24, "rw", "frames to run, 1 or more"),
    Register("RING", 0x28, "rw", "frames that the rings hold; the frame after starts over; 0: all"),
    Register("WATCHDOG", 0x2C, "rw", "cycles without progress until error HANG; 0: never"),
    Register("CYCLES", 0x30, "ro", "cycles from start to done, low word"),
    Register("CYCLES_HIGH", 0x34, "ro", "high word"),
    Register("FRAMES_DONE", 0x38, "ro", "frames finished"),
    Register("PROGRAM_COUNTER", 0x3C, "ro", "word of the program that is being worked on"),
    Register("CONFIG_WORDS", 0x40, "ro", "configuration words sent"),
    Register("CONFIG_STALLS", 0x44, "ro", "cycles a configuration word waited for its unit"),
    Register("FENCE_STALLS", 0x48, "ro", "cycles a fence waited"),
    Register("MAC_CYCLES", 0x4C, "ro", "cycles an array issued a tap, summed over the columns"),
    Register("READ_BEATS", 0x50, "ro", "beats read from memory"),
    Register("WRITE_BEATS", 0x54, "ro", "beats written to memory"),
    Register("CONFIG_HIDDEN", 0x58, "ro", "cycles a configuration word moved and an array issued a tap"),
    *_cause_registers(0x5C),
)


class Error(enum.IntEnum):
    """Error codes of the STATUS register."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    READ_RESPONSE = 2  # the memory answered a read with an error
    WRITE_RESPONSE = 3  # the memory answered a write with an error
    HANG = 4  # the watchdog saw no progress


ACTIVITY_BITS = 32
"""Bits of a column in the top's ``activity`` output."""

FLAG_BITS = 16
"""Of these, bits that are flags (:class:`Activity`)."""


class Activity(enum.IntEnum):
    """Bits of a column in the top's ``activity`` output: what it did a cycle ago (for traces).

    Above them lie the fields of :data:`ACTIVITY`.
    """

    MAC = 0  # the array issued a tap
    WAIT_ROWS = 1
    WAIT_WEIGHTS = 2
    WAIT_DRAIN = 3
    IDLE = 4  # the array had no configuration
    DRAIN = 5  # a result left the accumulators
    ALU = 6  # an operator passed a beat
    WINDOW = 7  # the window unit took a word
    MAPPER = 8  # the mapper passed a beat
    READ_ROWS = 9  # the rows line moved a beat
    READ_WEIGHTS = 10
    READ_OPERAND = 11
    WRITE = 12  # the write port took a beat
    WRITE_DONE = 13  # a write descriptor was acknowledged whole
    CONFIG = 14  # a configuration word moved on the bus (in all columns)


ACTIVITY = Layout(
    "ACTIVITY",
    "A column in the top's output ``activity``.",
    (
        _u("flags", FLAG_BITS, "Activity, a bit each"),
        _u("cause", 4, "Cause; USEFUL: a tap, whose MACs the first three share"),
        _u("lanes", LANE_BITS, "with a tap: its lanes that are output positions"),
        _u("maps", LANE_BITS, "with a tap: its maps that exist"),
    ),
)


ENUMERATIONS: tuple[type[enum.IntEnum], ...] = (
    Opcode, Kind, Relocate, Scatter, AluOp, WindowOp, Row, RouterIn, RouterOut, Operand, Error, Activity,
)  # fmt: skip
"""Enumerations that fields and registers hold, but :class:`Cause`, whose table says more."""


def to_markdown() -> str:
    """Return the instruction, configuration and register tables, and all numbers, as Markdown."""
    parts = []
    for layout in (INSTRUCTION, CONFIG_BEAT, *dict.fromkeys(UNITS.values()), PARAMETERS, ACTIVITY):
        parts.append(f"### {layout.name}\n\n{layout.doc}\n\n| bits | field | meaning |\n|---|---|---|")
        offset = 0
        for field in layout.fields:
            sign = ", signed" if field.signed else ""
            top = offset + field.bits - 1
            parts.append(f"| {top}:{offset} | `{field.name}` | {field.doc}{sign} |")
            offset += field.bits
        parts.append("")
    parts.append("### Registers\n\n| address | name | access | meaning |\n|---|---|---|---|")
    for r in REGISTERS:
        meaning = r.doc.replace("|", "\\|")  # else it would begin another cell
        parts.append(f"| 0x{r.address:02X} | `{r.name}` | {r.access} | {meaning} |")
    parts.append("\n### Causes\n\nWhat became of each MAC-cycle; the first that holds counts.\n")
    parts.append("| number | cause | meaning |\n|---|---|---|")
    parts += [f"| {cause.value} | `{cause.name}` | {cause.doc} |" for cause in Cause]
    parts.append("\n### Numbers\n\nWhat the values of a field, of `STATUS` or a bit are called.\n")
    parts.append("| enumeration | meaning | values |\n|---|---|---|")
    parts += [_numbers_row(kind) for kind in ENUMERATIONS]
    return "\n".join(parts) + "\n"


def _numbers_row(kind: type[enum.IntEnum]) -> str:
    """Return an enumeration as a row of a table."""
    meaning = str(kind.__doc__).partition("\n")[0].replace("``", "`")
    values = ", ".join(f"{member.value} `{member.name}`" for member in kind)
    return f"| {kind.__name__} | {meaning} | {values} |"


def to_header() -> str:
    """Return the register map as a C header."""
    lines = ["/* Register map of neuflow; generated from neuflow/layout.py. */", "#pragma once", ""]
    for register in REGISTERS:
        define = f"#define NEUFLOW_{register.name}"
        lines.append(f"{define:<36} 0x{register.address:02X}u /* {register.access}: {register.doc} */")
    lines.append("")
    for name, value in (("ID_VALUE", IDENTITY), ("VERSION_VALUE", HARDWARE_VERSION)):
        lines.append(f"#define NEUFLOW_{name:<20} 0x{value:08X}u")
    lines += [f"#define NEUFLOW_ERROR_{error.name:<20} {error.value}u" for error in Error]
    lines += [f"#define NEUFLOW_CAUSE_{cause.name:<20} {cause.value}u" for cause in Cause]
    lines += [f"#define NEUFLOW_ACTIVITY_{flag.name:<17} {flag.value}u" for flag in Activity]
    lines.append(f"#define NEUFLOW_{'ACTIVITY_BITS':<26} {ACTIVITY_BITS}u")
    lines.append(f"#define NEUFLOW_{'SCRATCHPAD_BASE':<26} 0x{SCRATCHPAD:08X}u /* words */")
    offset = 0
    for field in ACTIVITY.fields:
        mask = ((1 << field.bits) - 1) << offset
        lines.append(f"#define NEUFLOW_ACTIVITY_FIELD_{field.name.upper():<11} 0x{mask:08X}u")
        offset += field.bits
    return "\n".join(lines) + "\n"
