"""From an ONNX model to a program. ``PASSES`` is the walk, in reading order.

    model.onnx -load-> Graph -quantise-> QuantGraph -assign, cut-> Mapping -early rows,
    search-> Mapping -schedule, allocate-> Schedule -configure, assemble-> Program
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuflow.compiler.assemble import assemble
from neuflow.compiler.assign import Forced, assign
from neuflow.compiler.early_rows import early_rows
from neuflow.compiler.mapping import Mapping
from neuflow.compiler.schedule import schedule
from neuflow.errors import CompileError
from neuflow.grid import GridConfig
from neuflow.ir import Program, QuantGraph


@dataclass
class Stages:
    """What a compilation starts from, and every noun on the way, as far as it has come.

    ``cuts``: see :func:`~neuflow.compiler.assign.assign`; ``search``: cuts of each layer that are tried;
    ``told`` is told how far that has come.
    """

    model: Path | None
    grid: GridConfig
    calib: Any = None
    bits: int = 16
    q8_8: bool = False
    batch: int | None = None
    cuts: Forced | None = None
    search: int = 1
    told: Callable[[str], None] | None = None
    nouns: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, noun: str) -> Any:
        return self.nouns[noun]


def _load(stages: Stages) -> Any:
    from neuflow.compiler.load import load

    assert stages.model is not None
    return load(stages.model)


def _quantise(stages: Stages) -> QuantGraph:
    from neuflow.compiler.quantise import quantise

    return quantise(stages["graph"], stages.calib, stages.bits, stages.q8_8)


def _search(stages: Stages) -> Mapping:
    if stages.search == 1:  # without the judge, which would have to be compiled
        return stages["early"]
    from neuflow.compiler.search import search

    told = stages.told or (lambda _: None)
    return search(stages["early"], stages.grid, stages.search, told)


def _batch(stages: Stages) -> int:
    """Images of a frame: as asked for, else as the model fixes them, else one."""
    batch = stages["quantised"].batch if stages.batch is None else stages.batch
    batch = 1 if batch is None else batch
    if batch < 1:
        raise CompileError(f"batch {batch}; give 1 or more")
    return batch


PASSES: tuple[tuple[str, Callable[[Stages], Any]], ...] = (
    # ONNX to a float graph: constants folded, batch norm and padding merged into convolutions.
    ("graph", _load),
    # Float to integers: a binary point for every tensor, rescaling for every map, mapper tables.
    ("quantised", _quantise),
    # Nodes to chains that cross a column in one go; chains to pieces that fit, by least cycles.
    ("mapping", lambda s: assign(s["quantised"], s.grid, _batch(s), s.cuts)),
    # Depthwise layers in two rounds of rows, where the next one so begins earlier.
    ("early", lambda s: early_rows(s["mapping"], s.grid, s.cuts or ())),
    # Only if asked for: other cuts, where the cycle judge says that the network is done sooner.
    ("searched", _search),
    # One global order; tensors and rows get their places; fences where memory is handed on.
    ("schedule", lambda s: schedule(s["searched"], s.grid)),
    # Configuration words, descriptors, routes, packed weights: the device section.
    ("program", lambda s: assemble(s["schedule"], s.grid, s["quantised"])),
)
"""The compiler: (noun that a pass makes, pass)."""


def run_passes(stages: Stages, stop_after: str = "program") -> Stages:
    """Run the passes whose noun is not there yet, up to and including ``stop_after``."""
    for noun, step in PASSES:
        if noun not in stages.nouns:
            stages.nouns[noun] = step(stages)
        if noun == stop_after:
            break
    return stages


def compile_model(
    model: Path | str,
    grid: GridConfig,
    calib: Any = None,
    bits: int = 16,
    q8_8: bool = False,
    batch: int | None = None,
    search: int = 1,
    told: Callable[[str], None] | None = None,
) -> Program:
    """Compile an ONNX file for ``grid``.

    Parameters
    ----------
    model : the ONNX file.
    calib : images to calibrate with, as ``quantise`` takes them; None: its default.
    bits : 16, or 8 to saturate every word to 8 bits.
    q8_8 : one binary point, 8, for all tensors.
    batch : images of a frame; None: the model's own fixed batch, or 1.
    search : so many cuts of each layer, the best by estimate, are tried on the cycle judge; 1: none.
    told : is told how far the search has come, line by line.
    """
    stages = Stages(Path(model), grid, calib, bits, q8_8, batch, search=search, told=told)
    return run_passes(stages)["program"]


def compile_graph(graph: QuantGraph, grid: GridConfig, batch: int = 1) -> Program:
    """Compile a quantised graph for ``grid``."""
    stages = Stages(None, grid, batch=batch, nouns={"graph": None, "quantised": graph})
    return run_passes(stages)["program"]


__all__ = ["PASSES", "Stages", "compile_graph", "compile_model", "run_passes"]
