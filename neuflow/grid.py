"""The machine's parameters: :class:`GridConfig`, its checks, and the presets."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuflow.errors import ConfigError
from neuflow.fixed import ACC_BITS, WORD_BITS
from neuflow.layout import COLUMN_BITS, LANE_BITS, ROW_ADDRESS


@dataclass(frozen=True)
class MemoryConfig:
    """The external memory that figures assume; every judge takes it at run time.

    A token bucket: every cycle adds ``tokens`` tokens, a beat costs ``tokens_per_beat``, at most
    one beat's worth is saved. 17 and 20 mean 17 beats in 20 cycles.
    """

    tokens: int = 17
    tokens_per_beat: int = 20
    shared: bool = True
    """True: reads and writes share one bucket; False: one each."""
    read_latency: int = 40
    """Cycles from the acceptance of a read address to its first beat."""
    write_latency: int = 20
    """Cycles from the last beat of a write burst to its response."""
    outstanding: int = 16
    """Read bursts, and write bursts, that may be under way."""

    def __post_init__(self) -> None:
        for name, (low, high) in MEMORY_RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"memory: {name} must be {low} to {high}, not {getattr(self, name)}")
        if self.tokens > self.tokens_per_beat:
            raise ConfigError(
                "memory: tokens must be at most tokens_per_beat, for the bus moves a beat a cycle"
            )


MEMORY_RANGES = {
    "tokens": (1, 1_000_000),
    "tokens_per_beat": (1, 1_000_000),
    "read_latency": (1, 100_000),
    "write_latency": (1, 100_000),
    "outstanding": (1, 1024),
}
"""Field of :class:`MemoryConfig` -> smallest and largest value that the memory models know."""


BUFFER_WORDS = 1 << ROW_ADDRESS
"""Size that no buffer of a tile exceeds, words."""

SCRATCHPAD_BANKS = 2
"""Banks of a scratchpad, of even and of odd beats: each reads a beat and writes one in a cycle."""


@dataclass(frozen=True)
class GridConfig:
    """Parameters of one grid. Frozen; ``dataclasses.replace`` makes variants. Checked when made.

    Column = convolver tile, operator tile, mapper tile and ``fifo_tiles`` FIFO tiles, north to
    south, with four DMA ports (rows, weights, operand, write).
    """

    name: str
    columns: int = 4
    maps: int = 4
    """Maps a convolver computes at once = words (lanes) of a link."""
    pixels: int = 25
    """Pixels a convolver computes at once; its MACs are ``maps * pixels``."""
    row_banks: int = 32
    row_words: int = 65536
    """Row buffer of a convolver, words."""
    weight_words: int = 36864
    """Weight buffer of a convolver (a ring), words."""
    weight_blocks: int = 256
    """Map blocks whose bias and scale a convolver holds (a ring)."""
    reorder_words: int = 16384
    """Reorder buffer of a convolver, words."""
    operators: int = 2
    """Term-by-term operators of an operator tile."""
    window_words: int = 16384
    """Row memory of a window unit, partial results: one a column of its input."""
    fifo_tiles: int = 2
    fifo_words: int = 5120
    """Words of a FIFO tile (two FIFOs of half)."""
    bus_words: int = 8
    """Words of a memory beat."""
    burst_beats: int = 16
    dma_beats: int = 64
    """Beats that a DMA port buffers."""
    rows_beats: int = 128
    """Beats that a port of rows buffers: what the bus carries while one goes there and back behind
    bursts of all other ports. Others would only take the bus, or the scratchpad, from rows."""
    scratchpad_words: int = 0
    """Memory of the DMA on the chip, words, beside the one outside; 0: none."""
    config_queue: int = 2
    """Configurations a unit holds: the one it works under and those that wait; 1 or 2."""
    word_bits: int = WORD_BITS
    acc_bits: int = ACC_BITS
    clock_hz: int = 200_000_000
    clock_source: str = "assumed"
    """"assumed" or "placed and routed"."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)

    def __post_init__(self) -> None:
        for rule, fix in self._rules():
            if not rule:
                raise ConfigError(f"grid {self.name!r}: {fix}")

    def _rules(self) -> list[tuple[bool, str]]:
        sizes = ("maps", "pixels", "row_words", "weight_words", "weight_blocks", "reorder_words")
        power = ("maps", "row_banks", "row_words", "bus_words", "burst_beats", "dma_beats", "rows_beats")
        positive = [(getattr(self, n) >= 1, f"{n} must be 1 or more") for n in sizes]
        powers = [
            (getattr(self, n) >= 1 and getattr(self, n).bit_count() == 1, f"{n} must be a power of 2")
            for n in power
        ]
        buffers = ("weight_words", "weight_blocks", "reorder_words", "window_words", "fifo_words")
        bounded = [(getattr(self, n) <= BUFFER_WORDS, f"{n} must be at most {BUFFER_WORDS}") for n in buffers]
        return [
            *positive,
            *bounded,
            *powers,
            (1 <= self.columns <= COLUMN_BITS, f"columns must be 1 to {COLUMN_BITS}"),
            (self.maps < 1 << LANE_BITS, f"maps must be below {1 << LANE_BITS}"),
            (self.pixels < 1 << LANE_BITS, f"pixels must be below {1 << LANE_BITS}"),
            (self.row_banks >= self.pixels, "row_banks must be at least pixels"),
            (self.row_words >= 2 * self.row_banks, "row_words must be at least 2 * row_banks"),
            (self.row_words < 1 << ROW_ADDRESS, f"row_words must be below {1 << ROW_ADDRESS}"),
            (2 * self.bus_words <= self.row_banks, "row_banks must be at least 2 * bus_words"),
            (self.bus_words == 2 * self.maps, "bus_words must be 2 * maps"),
            (self.weight_words % self.bus_words == 0, "weight_words must be whole beats"),
            (self.weight_words >= 4 * self.bus_words, "weight_words must hold 4 beats"),
            (self.reorder_words % self.maps == 0, "reorder_words must be a multiple of maps"),
            (self.dma_beats >= 2 * self.burst_beats, "dma_beats must hold two bursts"),
            (self.rows_beats >= self.dma_beats, "rows_beats must be at least dma_beats"),
            (self.burst_beats * self.bus_words * 2 <= 4096, "a burst must fit in 4 KB"),
            (self.burst_beats <= 256, "burst_beats must be at most 256, as many as AXI4 has"),
            (self.name.isprintable() and self.name != "", "name must be one line of text"),
            (
                self.scratchpad_words % (SCRATCHPAD_BANKS * self.bus_words) == 0,
                f"scratchpad_words must be whole beats, a multiple of {SCRATCHPAD_BANKS}",
            ),
            (
                self.scratchpad_words == 0
                or 2 * self.burst_beats * self.bus_words <= self.scratchpad_words < 1 << 31,
                "scratchpad_words must be 0, or hold two bursts and be below 2**31",
            ),
            (2 <= self.operators <= 2, "operators must be 2"),
            (0 <= self.fifo_tiles <= 8, "fifo_tiles must be 0 to 8"),
            (self.fifo_words >= 8 * self.maps, "fifo_words must be at least 8 * maps"),
            (self.window_words >= 16, "window_words must be at least 16"),
            (self.config_queue in (1, 2), "config_queue must be 1 or 2"),
            (self.word_bits == WORD_BITS, f"word_bits must be {WORD_BITS}"),
            (self.acc_bits == ACC_BITS, f"acc_bits must be {ACC_BITS}"),
            (self.clock_hz > 0, "clock_hz must be positive"),
            (self.clock_source in ("assumed", "placed and routed"), 'clock_source: "assumed" or "placed and routed"'),
        ]

    @property
    def lanes(self) -> int:
        """Words of a link beat."""
        return self.maps

    @property
    def tap_lanes(self) -> int:
        """Taps of one map that a convolver can work on at once (CONV_ARRAY.by_tap); 1: it cannot.

        They read ``maps`` - 1 words beyond the pixels', and a word of a weights packet is an address.
        """
        wide = self.pixels + self.maps - 1 <= self.row_banks
        return self.maps if wide and self.row_words <= 1 << WORD_BITS else 1

    @property
    def tap_gap(self) -> int:
        """Words by tap between the lanes' words of two output rows: read beyond the first; 0: none.

        Lanes go on from row to row only where all those words lie in different banks.
        """
        beyond = self.tap_lanes - 1
        return beyond if self.pixels + 2 * beyond <= self.row_banks else 0

    @property
    def tap_gather(self) -> bool:
        """Whether one reading of the banks serves two steps by tap (CONV_ARRAY.gather)."""
        lanes = self.tap_lanes
        return lanes > 1 and self.pixels + 2 * lanes - 1 <= self.row_banks

    @property
    def macs(self) -> int:
        """Multiply-accumulates a cycle, all columns."""
        return self.columns * self.maps * self.pixels

    @property
    def rows(self) -> int:
        """Tiles of a column."""
        return 3 + self.fifo_tiles

    @property
    def tiles(self) -> int:
        """Tiles of the grid."""
        return self.columns * self.rows

    @property
    def bus_bits(self) -> int:
        """Width of the memory bus."""
        return self.bus_words * self.word_bits

    @property
    def bus_words_per_cycle(self) -> float:
        """Words a cycle that the memory moves (shared, or each way)."""
        return self.bus_words * self.memory.tokens / self.memory.tokens_per_beat

    def hash(self) -> str:
        """Return the SHA-256 (hex) of all that shapes the hardware; clock and memory do not."""
        return _hash(self)


@functools.cache
def _hash(grid: GridConfig) -> str:
    values = dataclasses.asdict(grid)
    for key in ("name", "clock_hz", "clock_source", "memory"):
        del values[key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# As large a scratchpad as its board's 416 block RAMs leave, with FIFO tiles of 8 kB.
VIRTEX6 = GridConfig("virtex6", fifo_words=4096, scratchpad_words=212992)
# The MACs and memories of virtex6 in half as many columns of twice the maps: a bus of twice the width
# moves the 10.5 words a cycle (4.2 GB/s) at which others measured ResNet-50. Half as many row buffers
# leave more block RAMs to the scratchpad.
VIRTEX6_WIDE = GridConfig(
    "virtex6_wide", columns=2, maps=8, weight_words=73728, reorder_words=32768, window_words=32768,
    fifo_words=8192, bus_words=16, scratchpad_words=360448,
    memory=MemoryConfig(tokens=21, tokens_per_beat=32),
)  # fmt: skip
ASIC45 = GridConfig(
    "asic45", scratchpad_words=212992, clock_hz=400_000_000,
    memory=MemoryConfig(tokens=1, tokens_per_beat=1, shared=False),
)  # fmt: skip
# Four grids' worth of MACs, memory and bandwidth as one grid: columns of twice the maps, twice as many.
ASIC45_4GRID = GridConfig(
    "asic45_4grid", columns=8, maps=8, weight_words=73728, reorder_words=32768, window_words=32768,
    fifo_words=10240, bus_words=16, scratchpad_words=786432, clock_hz=400_000_000,
    memory=MemoryConfig(tokens=1, tokens_per_beat=1, shared=False),
)  # fmt: skip
CNP = GridConfig("cnp", columns=1)
FIG2 = GridConfig("fig2", columns=3, fifo_tiles=0)
# As many MACs as nextpnr can route there: links of two words take half the look-up tables of four.
# The clock is that of the fastest part in docs/place_and_route.md.
ECP5_85K = GridConfig(
    "ecp5_85k", columns=1, maps=2, pixels=30, bus_words=4, row_words=16384, weight_words=8192,
    weight_blocks=64, reorder_words=4096, window_words=2048, fifo_tiles=1, fifo_words=2048,
    rows_beats=64, clock_hz=107_000_000, clock_source="placed and routed",
)  # fmt: skip
TINY = GridConfig(
    "tiny", columns=2, maps=2, pixels=5, row_banks=8, row_words=512, weight_words=256,
    weight_blocks=16, reorder_words=128, window_words=64, fifo_tiles=1, fifo_words=64, bus_words=4,
    burst_beats=4, dma_beats=8, rows_beats=16, scratchpad_words=512,
    memory=MemoryConfig(read_latency=10, write_latency=6, outstanding=4),
)  # fmt: skip

PRESETS: dict[str, GridConfig] = {
    g.name: g for g in (VIRTEX6, VIRTEX6_WIDE, ASIC45, ASIC45_4GRID, CNP, FIG2, ECP5_85K, TINY)
}


def from_dict(values: dict[str, Any]) -> GridConfig:
    """Build a grid from plain values, refusing unknown keys and wrong types."""
    values = dict(values)
    memory = _checked(MemoryConfig, values.pop("memory", {}), "memory")
    return GridConfig(**_checked(GridConfig, values, "grid"), memory=MemoryConfig(**memory))


def _checked(cls: type, values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table of keys and values")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; known are {', '.join(fields)}")
        want = {"int": int, "str": str, "bool": bool}[str(fields[key].type)]
        if type(value) is not want:
            raise ConfigError(f"{where}: {key} must be {want.__name__}, not {value!r}")
    return values


def load(name_or_file: str) -> GridConfig:
    """Return a preset by name, or the grid that a TOML file describes.

    A file holds the fields of :class:`GridConfig`; ``base = "preset"`` starts from a preset, and a
    table ``[memory]`` holds those of :class:`MemoryConfig`.
    """
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise ConfigError(
            f"grid {name_or_file!r} is neither a preset ({', '.join(PRESETS)}) nor a file"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name another file") from None
    base = values.pop("base", None)
    start: dict[str, Any] = {"name": path.stem}
    if base is not None:
        if not isinstance(base, str) or base not in PRESETS:
            raise ConfigError(f"{path}: base {base!r} is not a preset ({', '.join(PRESETS)})")
        start = {**dataclasses.asdict(PRESETS[base]), "name": path.stem}
    if isinstance(values.get("memory"), dict):
        values["memory"] = {**start.get("memory", {}), **values["memory"]}
    try:
        return from_dict({**start, **values})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
