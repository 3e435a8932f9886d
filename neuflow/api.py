"""The Python API: compile a model, run it under a judge, get arrays and statistics."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuflow import ir
from neuflow.errors import InputError
from neuflow.grid import MEMORY_RANGES, GridConfig, MemoryConfig
from neuflow.grid import load as load_grid
from neuflow.ir import Result
from neuflow.run import host

if TYPE_CHECKING:
    from neuflow.run.accuracy import Accuracy

CALIBRATION_IMAGES = 8
CALIBRATION_SEED = 0
FINE = {16: 40.0, 8: 20.0}
"""Bits of words -> dB of signal to noise below which :func:`coarse` names a table."""


@dataclass(frozen=True)
class Run:
    """What a run gave.

    Attributes
    ----------
    outputs : float32 by ONNX name, [N, ...] in the model's own shapes.
    words : what the grid gave, signed words int64 [N, C, H, W] by name, before host operators.
    stats : see ``neuflow/stats.schema.json``.
    """

    outputs: Mapping[str, NDArray[Any]]
    words: Mapping[str, ir.Words]
    stats: Mapping[str, Any]

    @property
    def output(self) -> NDArray[Any]:
        """The only output."""
        if len(self.outputs) != 1:
            raise InputError(f"the model has outputs {list(self.outputs)}; name one in .outputs")
        return next(iter(self.outputs.values()))


@dataclass(frozen=True)
class Program:
    """A compiled model that can be run. ``ir`` is what the ``.nfp`` file holds."""

    ir: ir.Program

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.ir.name

    @property
    def grid(self) -> GridConfig:
        """The grid it was compiled for."""
        return self.ir.grid

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.nfp`` file."""
        from neuflow import program

        program.save(self.ir, Path(path))

    @property
    def raw_names(self) -> tuple[str, ...]:
        """Names of the tensors that the grid writes."""
        return tuple(port.tensor.name for port in self.ir.outputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, those that the host works out included."""
        return tuple(host.dequantise_outputs(self.ir.graph, _one_zero_image(self.ir)))

    def golden(self, x: Any, memory: MemoryConfig | None = None) -> Run:
        """Evaluate the quantised graph in NumPy.

        ``x``: one array [N, ...], or several by name. ``memory`` changes the rooflines alone.
        """
        from neuflow.run import golden, stats

        words = quantise_inputs(self.ir, x)
        outputs = golden.run(self.ir, words).outputs
        images = len(next(iter(words.values())))
        return self._finish(Result(outputs, stats.assemble(self.ir, images, None, memory)))

    def cycle(self, x: Any, memory: MemoryConfig | None = None, seed: int | None = None) -> Run:
        """Run on the cycle judge; see :func:`neuflow.cycle.judge.run`."""
        from neuflow.cycle import judge

        return self._finish(judge.run(self.ir, quantise_inputs(self.ir, x), memory, seed))

    def cycles(
        self, images: int, memory: MemoryConfig | None = None, seed: int | None = None
    ) -> Mapping[str, Any]:
        """Return the statistics of a run over ``images`` images on the cycle judge, no values."""
        from neuflow.cycle import judge
        from neuflow.run import stats

        measured = judge.simulate(self.ir, images, memory, seed, timeline=False)
        return stats.assemble(self.ir, images, measured, memory, judge="cycle")

    def rtl(
        self,
        x: Any,
        memory: MemoryConfig | None = None,
        seed: int | None = None,
        waves: str | os.PathLike[str] | None = None,
    ) -> Run:
        """Run on the grid's Verilog under Verilator; see :func:`neuflow.run.rtl.run`."""
        from neuflow.run import rtl

        path = Path(waves) if waves is not None else None
        return self._finish(rtl.run(self.ir, quantise_inputs(self.ir, x), memory, seed, path))

    def _finish(self, result: Result) -> Run:
        reals = host.dequantise_outputs(self.ir.graph, result.outputs)
        return Run(reals, result.outputs, result.stats)


def compile(
    model: str | os.PathLike[str],
    grid: str | GridConfig = "virtex6",
    calib: Any = None,
    bits: int = 16,
    q8_8: bool = False,
    batch: int | None = None,
    search: int = 1,
    told: Callable[[str], None] | None = None,
) -> Program:
    """Compile an ONNX model.

    Parameters
    ----------
    model : ONNX file.
    grid : preset, TOML file, or a ``GridConfig``.
    calib : inputs that the binary points are chosen by: one array [N, ...], or several by name;
        None: 8 standard-normal inputs, seeded.
    bits : width of words, 16 or 8.
    q8_8 : every tensor with 8 fractional bits instead of points by calibration.
    batch : images of a pass; None: the model's own fixed batch, or 1.
    search : so many ways to cut each layer, the best by estimate, are tried on the cycle judge, which
        takes minutes; those of fewest cycles stay. 1: the best by estimate.
    told : is told how far the search has come, in one line at a time.
    """
    from neuflow import compiler

    if search < 1:
        raise InputError(f"search {search}; give 1 or more")
    config = grid if isinstance(grid, GridConfig) else load_grid(grid)
    stages = compiler.Stages(
        Path(model), config, None, bits, q8_8, batch, search=search, told=told
    )
    graph = compiler.run_passes(stages, "graph")["graph"]
    tensors = [graph.tensors[name] for name in graph.inputs]
    stages.calib = random_inputs(tensors) if calib is None else named(calib, list(graph.inputs))
    return Program(compiler.run_passes(stages)["program"])


def accuracy(
    model: str | os.PathLike[str], program: Program, x: Any
) -> tuple[list[Accuracy], Mapping[str, float] | str]:
    """Compare golden with the model, tensor by tensor; see :mod:`neuflow.run.accuracy`.

    Returns worst error, its bound and SQNR of every tensor, and of every output the SQNR against
    onnxruntime, dB (or why there is none: it is not installed, or lacks an operation of a type).
    Refused: a model that ``program`` is not of.
    """
    from neuflow import compiler
    from neuflow.run import accuracy as measured

    stages = compiler.Stages(Path(model), program.grid)
    graph = compiler.run_passes(stages, "graph")["graph"]
    quantised = program.ir.graph
    shapes = {name: tensor.shape for name, tensor in quantised.tensors.items()}
    same = all(shapes.get(name) == tensor.shape for name, tensor in graph.tensors.items())
    if graph.inputs != quantised.inputs or not same:
        raise InputError(f"{model}: the program was compiled from another model; compile this one")
    arrays = named(x, list(quantised.inputs))
    reals = {name: real_array(array, f"input {name!r}") for name, array in arrays.items()}
    found = measured.measure(graph, quantised, reals)
    return found, measured.against_onnxruntime(str(model), quantised, reals)


def random_inputs(
    tensors: Sequence[ir.Tensor], images: int = CALIBRATION_IMAGES, seed: int = CALIBRATION_SEED
) -> dict[str, NDArray[np.float64]]:
    """Return standard-normal inputs in the model's own shapes, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal((images, *host.own_shape(t))) for t in tensors}


def load(path: str | os.PathLike[str]) -> Program:
    """Read a ``.nfp`` file."""
    from neuflow import program

    return Program(program.load(Path(path)))


def quantise_inputs(program: ir.Program, x: Any) -> dict[str, ir.Words]:
    """Turn real inputs into words int64 [N, C, H, W] by name, under each input's binary point.

    Values beyond the range of a word saturate. Refused with ``InputError``: unknown or missing
    names, other shapes than [N, ...], NaN, complex or object values, no image at all.
    """
    arrays = named(x, [port.tensor.name for port in program.inputs])
    reals = {name: real_array(array, f"input {name!r}") for name, array in arrays.items()}
    words = host.quantise_inputs(program.graph, reals)
    counts = {name: len(array) for name, array in words.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"inputs hold different numbers of images: {counts}; give equally many")
    return words


def saturated(program: ir.Program, x: Any) -> dict[str, tuple[float, float, float]]:
    """Return, for each input with values beyond the range of its words: their share, and that range.

    ``x`` as :func:`quantise_inputs` takes it, which lets such values saturate.
    """
    found = {}
    arrays = named(x, [port.tensor.name for port in program.inputs])
    for name, array in arrays.items():
        form = host.form(program.graph.tensors[name])
        words = np.asarray(array, np.float64) / form.step
        share = float(((words < form.low - 0.5) | (words >= form.high + 0.5)).mean())
        if share:
            found[name] = (share, form.low * form.step, form.high * form.step)
    return found


def coarse(program: ir.Program) -> dict[str, float]:
    """Return the nodes whose table has less than ``FINE`` dB of signal to noise, and how much.

    Over the range that calibration has seen, every input word once. Curves that are steep
    somewhere, such as powers below 1 near zero, are more than the mapper's segments can follow.
    """
    graph = program.graph
    noises = {node.name: node.attrs["table"].noise for node in graph.nodes if "table" in node.attrs}
    ratios = {name: -20 * math.log10(noise) for name, noise in noises.items() if noise}
    return {name: ratio for name, ratio in ratios.items() if ratio < FINE[graph.bits]}


def named(x: Any, names: list[str]) -> dict[str, ArrayLike]:
    """Return inputs by name; a lone array is for the model's only input."""
    if not isinstance(x, Mapping):
        if len(names) != 1:
            raise InputError(f"the model has inputs {', '.join(names)}; give each by name (.npz)")
        return {names[0]: x}
    if set(x) != set(names):
        given = ", ".join(map(str, x)) or "none"
        raise InputError(f"inputs given: {given}; the model takes: {', '.join(names)}")
    return dict(x)


def real_array(x: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return ``x`` as float64 with at least one image; refuse what is not a real number."""
    values = np.asarray(x)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {values.dtype}; give real numbers or integers")
    if values.ndim == 0 or len(values) == 0:
        raise InputError(f"{what} has shape {values.shape}: the batch is empty; give an image")
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise InputError(f"{what} holds NaN; replace those values")
    return values


def _one_zero_image(program: ir.Program) -> dict[str, ir.Words]:
    return {
        port.tensor.name: np.zeros((1, *port.tensor.shape), np.int64) for port in program.outputs
    }


_MEMORY_KEYS = {
    "latency": "read_latency", "write_latency": "write_latency", "outstanding": "outstanding",
    "shared": "shared",
}  # fmt: skip
"""Key of ``--memory`` -> field of ``MemoryConfig``."""


def with_memory(grid: GridConfig, text: str) -> MemoryConfig:
    """Return the grid's memory model with ``key=value,...`` changed.

    Keys: ``latency`` (cycles to the first beat of a read), ``write_latency``, ``words_per_cycle``,
    ``outstanding`` (bursts), ``shared`` (0 or 1). Ranges: ``grid.MEMORY_RANGES``.
    """
    from fractions import Fraction

    memory = grid.memory
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        try:
            number = Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"--memory {item!r}: give key=number") from None
        if key == "words_per_cycle":
            rate = (number / grid.bus_words).limit_denominator(1000)
            if not 0 < rate <= 1:
                raise InputError(
                    f"--memory {item!r}: this grid's bus moves up to {grid.bus_words} words a cycle"
                )
            memory = dataclasses.replace(
                memory, tokens=rate.numerator, tokens_per_beat=rate.denominator
            )
            continue
        if key not in _MEMORY_KEYS:
            raise InputError(f"--memory {item!r}: known are words_per_cycle, {', '.join(_MEMORY_KEYS)}")
        name = _MEMORY_KEYS[key]
        low, high = MEMORY_RANGES.get(name, (0, 1))
        if number.denominator != 1 or not low <= number <= high:
            raise InputError(f"--memory {item!r}: give a whole number from {low} to {high}")
        changes: dict[str, Any] = {name: bool(number) if name == "shared" else int(number)}
        memory = dataclasses.replace(memory, **changes)
    return memory
