"""``neuflow compare``: one program under golden, cycle and rtl, and where they first part.

Words: golden's outputs against the functional interpreter's, and every word of every WRITE packet of
the interpreter against the beats that the Verilog writes, address and value, in order. Cycles: those
of the timing judge against those of the Verilog, in total and layer by layer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow import files
from neuflow.blocks.dma_model import word_addresses
from neuflow.cycle import judge
from neuflow.errors import HardwareError
from neuflow.grid import MemoryConfig
from neuflow.ir import Program, Words
from neuflow.layout import ACTIVITY_BITS, SCRATCHPAD
from neuflow.run import build, compilers, device, frames, golden, rtl
from neuflow.run.compare_locate import Locator, Operands, Spot
from neuflow.run.compare_text import agreement, disagreement
from neuflow.run.compare_times import Times, compare_times
from neuflow.run.device import Device, DeviceFault, Written
from neuflow.run.measure import placement
from neuflow.run.stats import Measured

Int = NDArray[np.int64]
BEFORE, CYCLES = 100, 200
"""Cycles of waves before the beat in question, and in all."""
DELAY = 1
"""Cycles from what the grid does to the port ``activity`` that says it (``blocks.top``)."""


@dataclass(frozen=True)
class Comparison:
    """What is said on stdout, and the files that were written."""

    agree: bool
    text: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Stream:
    """All words that a write port wrote, in order: word addresses as the interpreter counts, words,
    and the cycle of each one's beat (after the start bit)."""

    at: Int
    words: Int
    cycles: Int


@dataclass(frozen=True)
class Ran:
    """What the Verilog did. ``activity[t, c]`` from the first cycle in which the grid is busy on;
    ``late``: cycles that the harness's logs begin before."""

    outputs: Mapping[str, Words]
    measured: Measured
    streams: tuple[Stream, ...]
    activity: NDArray[np.unsignedinteger[Any]]
    late: int


@dataclass(frozen=True)
class Difference:
    """The first word that differs, in the program's order. A word that is not there is None.

    ``against``: who differs from the interpreter, "golden" or "rtl"; ``cycle``: of rtl's beat.
    """

    against: str
    written: Written
    number: int
    address: int
    expected: int | None
    found: int | None
    found_address: int | None
    cycle: int | None
    spot: Spot | None = None
    operands: Operands | None = None
    golden: int | None = None


@dataclass
class Setting:
    """What to run. ``sources`` (Verilog) and ``cycle_memory`` plant faults, for tests."""

    program: Program
    inputs: Mapping[str, Words]
    memory: MemoryConfig | None = None
    seed: int | None = None
    sources: Mapping[str, str] | None = None
    cycle_memory: MemoryConfig | None = None
    packets: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """(time, frame, column, program word, words) of every WRITE packet, once the interpreter ran."""

    @property
    def images(self) -> int:
        """Images of the run."""
        return frames.image_count(self.program, self.inputs)

    def simulator(self, trace: str = "") -> Path:
        """Return the executable of the grid, or of the Verilog in its place."""
        if self.sources is not None:
            return build.simulator_of(self.sources, f"changed {self.program.grid.name}", trace)
        return build.simulator(self.program.grid, trace)


def compare(
    program: Program,
    inputs: Mapping[str, Words],
    memory: MemoryConfig | None,
    seed: int | None,
    directory: Path,
    name: str,
    sources: Mapping[str, str] | None = None,
    cycle_memory: MemoryConfig | None = None,
) -> Comparison:
    """Run ``program`` on words int64 [N, C, H, W] by name under the three judges.

    Parameters
    ----------
    memory, seed : as for :func:`neuflow.run.rtl.run`.
    directory, name : on a disagreement ``name.compare.txt`` (all operands) and waves go there.
    sources, cycle_memory : other Verilog than the grid's, another memory for the judge cycle (tests).

    Raises what the judges raise for bad input; a fault that one judge alone finds is a disagreement.
    """
    setting = Setting(program, inputs, memory, seed, sources, cycle_memory)
    want = golden.run(program, inputs).outputs
    ends = [_or_error(lambda: judge.simulate(program, setting.images, cycle_memory or memory, seed))]
    ends.append(_or_error(lambda: _run_rtl(setting)))
    measured, ran = ends
    if not (isinstance(measured, Measured) and isinstance(ran, Ran)):
        if str(measured) == str(ran):
            raise HardwareError(str(ran))
        said = ["ends" if not isinstance(end, HardwareError) else str(end) for end in ends]
        return Comparison(False, f"DISAGREE\n  cycle: {said[0]}\n  rtl: {said[1]}")
    checker = _Checker(setting, ran)
    try:
        outputs = device.run(program, inputs, checker.watch).outputs
    except DeviceFault as fault:
        return Comparison(False, f"DISAGREE: rtl ends, the interpreter refuses the program: {fault}")
    setting.packets.sort()
    extra = [
        f"rtl writes {words} words more than the program asks for in column {column}"
        for column, words in enumerate(checker.surplus())
        if words
    ]
    wrong = [name for name in want if not np.array_equal(want[name], outputs[name])]
    extra += [f"golden differs from cycle in output {name}" for name in wrong]
    other = [name for name in want if not np.array_equal(ran.outputs[name], outputs[name])]
    extra += [f"rtl differs from cycle in output {name}" for name in other]
    times = compare_times(program, setting.images, measured, ran.measured, setting.packets)
    if checker.first is None and not extra and times is None:
        size = sum(words.size for words in want.values())
        return Comparison(True, agreement(program, size, checker.total, setting.packets, measured))
    found = _Finder(setting, ran, checker.first).run() if checker.first or wrong else []
    if times is not None:
        trace = np.zeros((measured.cycles, program.grid.columns), ran.activity.dtype)
        judge.simulate(program, setting.images, cycle_memory or memory, seed, trace=trace)
        times = times.with_activity(trace, ran.activity)
    return _finish(setting, found, extra, times, ran, directory / name)


def _or_error(run: Callable[[], Measured | Ran]) -> Measured | Ran | HardwareError:
    """Return what a judge gives, or why it stopped: the other may go on."""
    try:
        return run()
    except HardwareError as error:
        return error


# --- the run of the Verilog -----------------------------------------------------------------------


def _run_rtl(setting: Setting) -> Ran:
    """Run the Verilog with its logs."""
    program = setting.program
    with tempfile.TemporaryDirectory(prefix="neuflow-") as work:
        logs = {name: str(Path(work) / name) for name in ("writes", "activity")}
        column = {"activity_bytes": ACTIVITY_BITS // 8}
        outputs, measured = rtl.simulate(
            program, setting.inputs, setting.memory, setting.seed,
            executable=setting.simulator(), options=logs | column,
        )  # fmt: skip
        activity = np.fromfile(logs["activity"], f"<u{ACTIVITY_BITS // 8}")
        beat = np.dtype(
            [("cycle", "<i8"), ("address", "<i8"), ("strobes", "<u8"), ("column", "<i8"),
             ("data", "<i2", (program.grid.bus_words,))]
        )  # fmt: skip
        beats = np.fromfile(logs["writes"], beat)
    activity = activity.reshape(-1, program.grid.columns)
    late = len(activity) - measured.cycles - DELAY
    beats["cycle"] -= late
    streams = tuple(
        _stream(setting, beats[beats["column"] == column]) for column in range(program.grid.columns)
    )
    return Ran(outputs, measured, streams, activity[late + DELAY :], late)


def _stream(setting: Setting, beats: NDArray[np.void]) -> Stream:
    """Return the words of a port's beats; addresses as the interpreter counts them."""
    program, lanes = setting.program, np.arange(setting.program.grid.bus_words)
    given = (beats["strobes"][:, None] >> (2 * lanes).astype(np.uint64) & np.uint64(3)) != 0
    at = beats["address"][:, None] // 2 + lanes
    work = len(program.device) // 2
    count = frames.frame_count(program, setting.images)
    place = placement(program, count)
    frame_in = work + program.work_words
    frame_out = frame_in + count * program.input_words
    at = np.select(
        [at >= SCRATCHPAD, at >= place.outputs // 2, at >= place.inputs // 2],
        [at - SCRATCHPAD + frame_out + count * program.output_words,
         at - place.outputs // 2 + frame_out, at - place.inputs // 2 + frame_in],
        at - place.program // 2,
    )
    cycles = np.broadcast_to(beats["cycle"][:, None], given.shape)
    return Stream(at[given], beats["data"][given].astype(np.int64), cycles[given])


class _Checker:
    """Holds the interpreter's WRITE packets against the Verilog's beats."""

    def __init__(self, setting: Setting, ran: Ran) -> None:
        self.setting, self.ran = setting, ran
        self.taken = [0] * len(ran.streams)
        self.first: Difference | None = None
        self.total = 0

    def watch(self, _: Device, written: Written) -> None:
        """Take the words of one packet from its port's stream."""
        column, config, size = written.column, written.config, len(written.words)
        packet = (config.time, written.frame, column, config.word, size)
        self.setting.packets.append(packet)
        stream, begin = self.ran.streams[column], self.taken[column]
        self.taken[column] += size
        self.total += size
        if self.first is not None and self.first.written.config.time < config.time:
            return
        at = word_addresses(config.fields)
        mine = slice(begin, begin + size)
        words, there = stream.words[mine], stream.at[mine]
        least = len(words)
        wrong = (words != written.words[:least]) | (there != at[:least])
        number = int(wrong.argmax()) if wrong.any() else least
        if number == size:
            return
        lost = number == least
        self.first = Difference(
            "rtl", written, number, int(at[number]), int(written.words[number]),
            None if lost else int(words[number]), None if lost else int(there[number]),
            None if lost else int(stream.cycles[begin + number]),
        )  # fmt: skip

    def surplus(self) -> list[int]:
        """Return for each column the words that the Verilog wrote beyond the program's."""
        streams = zip(self.ran.streams, self.taken, strict=True)
        return [max(0, len(stream.words) - taken) for stream, taken in streams]


# --- what is found ----------------------------------------------------------------------------------


class _Finder:
    """Runs the interpreter again: finds golden's first difference, and the operands of both."""

    def __init__(self, setting: Setting, ran: Ran, first: Difference | None) -> None:
        self.setting, self.ran, self.rtl = setting, ran, first
        self.locator = Locator(setting.program, setting.inputs)
        self.golden: Difference | None = None
        self.taken = [0] * len(ran.streams)

    def run(self) -> list[Difference]:
        """Return the differences, rtl's first."""
        if self.locator.known:
            device.run(self.setting.program, self.setting.inputs, self.watch)
        return [found for found in (self.rtl, self.golden) if found is not None]

    def watch(self, machine: Device, written: Written) -> None:
        """Look at one packet."""
        begin = self.taken[written.column]
        self.taken[written.column] += len(written.words)
        want = self.locator.golden_words(written)
        first = self.rtl.written if self.rtl is not None else None
        if self.rtl is not None and first is not None:
            if (first.config.time, first.column) == (written.config.time, written.column):
                one = None if want is None else int(want[self.rtl.number])
                self.rtl = self._with_operands(machine, self.rtl, one)
        earlier = self.golden is not None and self.golden.written.config.time < written.config.time
        if want is None or earlier or np.array_equal(want, written.words):
            return
        number = int((want != written.words).argmax())
        stream, at = self.ran.streams[written.column], begin + number
        there = at < len(stream.words)
        found = Difference(
            "golden", written, number, int(word_addresses(written.config.fields)[number]),
            int(written.words[number]), int(stream.words[at]) if there else None,
            int(stream.at[at]) if there else None, int(stream.cycles[at]) if there else None,
        )  # fmt: skip
        self.golden = self._with_operands(machine, found, int(want[number]))

    def _with_operands(self, machine: Device, found: Difference, want: int | None) -> Difference:
        spot = self.locator.spot(found.written, found.number)
        return replace(
            found, spot=spot, operands=self.locator.operands(machine, spot), golden=want
        )


def _finish(
    setting: Setting, found: list[Difference], extra: list[str], times: Times | None, ran: Ran,
    target: Path,
) -> Comparison:  # fmt: skip
    """Write the full text and the waves; return what stdout says."""
    cycles = [one.cycle for one in found if one.cycle is not None]
    cycle = cycles[0] if cycles else times.cycle if times is not None else None
    waves = _waves(setting, ran, cycle, target) if cycle is not None else None
    texts = [disagreement(setting.program, found, extra, times, waves, cycle, ran.late, whole)
             for whole in (False, True)]  # fmt: skip
    listing = target.parent / f"{target.name}.compare.txt"
    files.write_text(listing, texts[1] + "\n")
    return Comparison(False, texts[0], (listing, *([waves] if waves is not None else [])))


def _waves(setting: Setting, ran: Ran, cycle: int, target: Path) -> Path:
    """Run the Verilog once more, with waves of the cycles around ``cycle``."""
    trace = compilers.waves_format()
    path = target.parent / f"{target.name}.{trace}"
    first = max(1, cycle - BEFORE + ran.late)
    window = {"trace_from": first, "trace_to": first + CYCLES - 1}
    files.write_atomic(path, lambda beside: _run_waves(setting, trace, beside, window))
    return path


def _run_waves(setting: Setting, trace: str, path: Path, window: Mapping[str, int]) -> None:
    rtl.simulate(
        setting.program, setting.inputs, setting.memory, setting.seed,
        executable=setting.simulator(trace), options={"trace": str(path.resolve()), **window},
    )  # fmt: skip
