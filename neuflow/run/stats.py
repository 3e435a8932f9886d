"""Figures of a run: what ``--json`` writes; ``neuflow/stats.schema.json`` describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuflow.grid import GridConfig, MemoryConfig
from neuflow.ir import Layer, Port, Program
from neuflow.layout import Cause
from neuflow.run.frames import frame_count


@dataclass(frozen=True)
class Measured:
    """What a judge with a clock saw; times in cycles after the start bit.

    ``registers``: the counters of ``layout.REGISTERS`` at the end, by name. ``write_done[c]``: when
    each WRITE packet of column c was acknowledged, ascending. ``causes[k]``: MACs of cause k of
    ``layout.Cause`` at the end; ``write_causes[c][n]``: the same before the cycle of each
    acknowledgement. ``timeline[w][c][k]``: of window w, which is
    ``window_cycles`` long, and column c: cycles in which it set bit k of ``layout.Activity``, and
    from ``layout.FLAG_BITS`` on the MACs of each cause.
    """

    cycles: int
    registers: Mapping[str, int]
    write_done: Sequence[Sequence[int]]
    causes: Sequence[int]
    write_causes: Sequence[Sequence[Sequence[int]]]
    window_cycles: int = 0
    timeline: Sequence[Sequence[Sequence[int]]] = field(default=(), repr=False)
    seconds: float | None = None


def bus_cycles(grid: GridConfig, memory: MemoryConfig, read: int, written: int) -> float:
    """Cycles that the memory takes at least for so many words: both ways at once if it has two."""
    words = read + written if memory.shared else max(read, written)
    return words * memory.tokens_per_beat / (grid.bus_words * memory.tokens)


def layer_roofline(program: Program, images: int, memory: MemoryConfig) -> float:
    """Cycles that no schedule beats which moves every layer's tensors once.

    Sum over layers of max(MACs / peak, :func:`bus_cycles` of its words). MACs and words are those of
    all images; weights count once a pass.
    """
    passes, grid = frame_count(program, images), program.grid
    total = 0.0
    for layer in program.layers:
        written = layer.output_words * images
        bus = bus_cycles(grid, memory, _words(layer, images, passes) - written, written)
        total += max(layer.macs * images / grid.macs, bus)
    return total


def _words(layer: Layer, images: int, passes: int) -> int:
    return (layer.words - layer.weight_words) * images + layer.weight_words * passes


def network_roofline(program: Program, images: int, memory: MemoryConfig) -> float:
    """Cycles that no schedule beats which keeps every tensor between layers on chip.

    max(all MACs / peak, :func:`bus_cycles` of the network's inputs, all weights and outputs).
    """
    macs = sum(layer.macs for layer in program.layers) * images
    inputs, outputs = (
        sum(port.tensor.size for port in ports) * images
        for ports in (program.inputs, program.outputs)
    )
    weights = sum(layer.weight_words for layer in program.layers) * frame_count(program, images)
    bus = bus_cycles(program.grid, memory, inputs + weights, outputs)
    return max(macs / program.grid.macs, bus)


def layer_cycles(program: Program, images: int, measured: Measured) -> list[int]:
    """Return for each layer the cycles from the last output before it to its own last output.

    A layer's last output is the last acknowledgement among its WRITE packets. Overlapping layers
    count once, for the one that ends later; they sum to ``measured.cycles``, the end of the
    program counting for the last layer.
    """
    totals = [0] * len(program.layers)
    before = 0
    for index, end, _ in _layer_ends(program, images, measured):
        totals[index] += end - before
        before = end
    if totals:
        totals[-1] += measured.cycles - before
    return totals


def layer_causes(program: Program, images: int, measured: Measured) -> NDArray[np.int64]:
    """Return int64 [layers, len(Cause)]: the MACs of each cause in the cycles of a layer.

    The cycles are those of :func:`layer_cycles`; the sums over layers are ``measured.causes``.
    """
    totals = np.zeros((len(program.layers), len(Cause)), np.int64)
    before = np.zeros(len(Cause), np.int64)
    for index, _, causes in _layer_ends(program, images, measured):
        if causes is not None:
            totals[index] += np.array(causes) - before
            before = np.array(causes)
    if len(totals):
        totals[-1] += np.array(measured.causes) - before
    return totals


def _layer_ends(
    program: Program, images: int, measured: Measured
) -> Iterator[tuple[int, int, Sequence[int] | None]]:
    """Yield, frame by frame: layer, cycle of its end, causes up to there.

    The causes are None for a layer that ends no later than the one before.
    """
    taken = [0] * len(measured.write_done)
    end = 0
    for _ in range(frame_count(program, images)):
        for index, layer in enumerate(program.layers):
            causes = None
            for column, count in enumerate(layer.writes):
                if count:
                    taken[column] += count
                    last = taken[column] - 1
                    if measured.write_done[column][last] > end:
                        end = measured.write_done[column][last]
                        causes = measured.write_causes[column][last]
            yield index, end, causes


def assemble(
    program: Program,
    images: int,
    measured: Measured | None = None,
    memory: MemoryConfig | None = None,
    judge: str = "golden",
) -> dict[str, Any]:
    """Return the statistics of a run over ``images``; without ``measured``, times are None."""
    grid: GridConfig = program.grid
    memory = memory or grid.memory
    macs = sum(layer.macs for layer in program.layers) * images
    cycles = measured.cycles if measured else None
    return {
        "program": program.name,
        "grid": grid.name,
        "judge": judge,
        "images": images,
        "batch": program.batch,
        "passes": frame_count(program, images),
        "cycles": cycles,
        "cycles_per_image": cycles / images if cycles is not None else None,
        "macs": macs,
        "peak_macs_per_cycle": grid.macs,
        "mac_utilisation": macs / (cycles * grid.macs) if cycles else None,
        "clock_hz": grid.clock_hz,
        "clock_source": grid.clock_source,
        "memory": _memory(memory),
        "layer_roofline_cycles": layer_roofline(program, images, memory),
        "network_roofline_cycles": network_roofline(program, images, memory),
        "memory_words": _memory_words(grid, measured),
        "stalls": _stalls(measured.causes) if measured else None,
        "config": _config(measured),
        "layers": _layers(program, images, measured),
        "inputs": [_port(port) for port in program.inputs],
        "outputs": [_port(port) for port in program.outputs],
    }


def _memory(memory: MemoryConfig) -> dict[str, Any]:
    return {
        "tokens": memory.tokens,
        "tokens_per_beat": memory.tokens_per_beat,
        "shared": memory.shared,
        "read_latency": memory.read_latency,
        "write_latency": memory.write_latency,
        "outstanding": memory.outstanding,
    }


def _memory_words(grid: GridConfig, measured: Measured | None) -> dict[str, int] | None:
    if measured is None:
        return None
    registers = measured.registers
    return {
        "read": registers["READ_BEATS"] * grid.bus_words,
        "written": registers["WRITE_BEATS"] * grid.bus_words,
    }


_CAUSES = tuple(cause.name.lower() for cause in Cause)


def _stalls(causes: Sequence[int] | NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(_CAUSES, np.asarray(causes).tolist(), strict=True))


def _config(measured: Measured | None) -> dict[str, int] | None:
    """One configuration word is sent a cycle; hidden: some array issued a tap in that cycle."""
    if measured is None:
        return None
    words = measured.registers["CONFIG_WORDS"]
    return {
        "words": words,
        "cycles": words,
        "hidden_cycles": measured.registers["CONFIG_HIDDEN"],
        "stall_cycles": measured.registers["CONFIG_STALLS"],
    }


def _layers(program: Program, images: int, measured: Measured | None) -> list[dict[str, Any]]:
    cycles: Sequence[int | None] = (
        layer_cycles(program, images, measured) if measured else [None] * len(program.layers)
    )
    causes = layer_causes(program, images, measured) if measured else None
    passes = frame_count(program, images)
    return [
        {
            "name": layer.name,
            "operator": layer.operator,
            "macs": layer.macs * images,
            "words": _words(layer, images, passes),
            "cycles": took,
            "stalls": None if causes is None else _stalls(causes[index]),
        }
        for index, (layer, took) in enumerate(zip(program.layers, cycles, strict=True))
    ]


def _port(port: Port) -> dict[str, Any]:
    tensor = port.tensor
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "onnx_shape": list(tensor.onnx_shape) if tensor.onnx_shape is not None else None,
        "bits": tensor.bits,
        "point": tensor.point,
    }
