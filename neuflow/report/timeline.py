"""Picture: a run over time, what every tile and DMA port did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from neuflow.grid import GridConfig
from neuflow.ir import Program
from neuflow.layout import Activity
from neuflow.report.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    matplotlib_defaults,
    new_figure,
)
from neuflow.run import stats
from neuflow.run.stats import Measured

ARRAY_STATES = (
    (Activity.MAC, BLUE, "array: multiplies"),
    (Activity.WAIT_ROWS, SKY, "waits for rows"),
    (Activity.WAIT_WEIGHTS, ORANGE, "waits for weights"),
    (Activity.WAIT_DRAIN, PURPLE, "waits for its drain"),
    (Activity.IDLE, LIGHT, "has no configuration"),
)
STRIPS = (
    (Activity.DRAIN, GREEN, "drain"),
    (Activity.ALU, GREEN, "operators"),
    (Activity.WINDOW, GREEN, "window"),
    (Activity.MAPPER, GREEN, "mapper"),
    (Activity.READ_ROWS, SKY, "port: rows"),
    (Activity.READ_WEIGHTS, ORANGE, "port: weights"),
    (Activity.READ_OPERAND, PURPLE, "port: operand"),
    (Activity.WRITE, VERMILLION, "port: write"),
)


def timeline_figure(measured: Measured, program: Program, images: int, title: str) -> Figure:
    """Draw what every tile and DMA port did over a run, from its activity windows.

    The height of a strip is the share of a window's cycles in which the unit was active. Units that
    were never active are left out and named below.

    Parameters
    ----------
    measured : of ``rtl.simulate``, with a timeline.
    images : that the run was over; layers are marked when it is one frame.
    """
    counts = np.asarray(measured.timeline, np.float64)
    if counts.ndim != 3 or not measured.window_cycles:
        raise ValueError("the run has no timeline")
    grid: GridConfig = program.grid
    counts = counts[:, : grid.columns]
    edges = np.append(np.arange(len(counts)) * measured.window_cycles, measured.cycles)
    keep = np.diff(edges) > 0
    # Windows behind the last cycle hold what came after the end.
    counts, edges = counts[: keep.sum()], edges[: keep.sum() + 1]
    share = counts / np.diff(edges)[:, None, None]
    used = [strip for strip in STRIPS if counts[:, :, strip[0]].any()]
    with matplotlib_defaults():
        figure = new_figure(12, 1.9 + grid.columns * (0.5 + 0.2 * len(used)))
        high = figure.get_figheight()
        axes = figure.add_axes((0.125, 0.95 / high, 0.86, 1 - 1.75 / high))
        _strips(axes, share, edges, used, grid.columns)
        _time_axes(axes, grid, measured.cycles)
        marks = _layer_marks(axes, program, images, measured)
        figure.suptitle(title, fontsize=12, y=1 - 0.1 / high, va="top")
        handles = [Patch(color=color, label=label) for _, color, label in ARRAY_STATES]
        figure.legend(handles=handles, ncol=5, loc="lower center", frameon=False, fontsize=9,
                      bbox_to_anchor=(0.55, 0.2 / high), borderaxespad=0)  # fmt: skip
        never = [label for bit, _, label in STRIPS if not counts[:, :, bit].any()]
        unused = f"   Never active: {', '.join(never)}." if never else ""
        figure.text(0.5, 0.06 / high, marks + unused, ha="center", va="bottom", fontsize=9)
    return figure


def _strips(
    axes: Any, share: NDArray[np.float64], edges: NDArray[Any], used: Sequence[Any], columns: int
) -> None:
    """Draw, column by column from the top, the array's stacked states and a strip for each unit."""
    ticks, labels, y = [], [], 0.0
    for column in range(columns):
        base = np.zeros(len(share))
        y -= 1.8
        for bit, color, _ in ARRAY_STATES:
            top = np.minimum(base + share[:, column, bit], 1.0)
            axes.stairs(y + 1.6 * top, edges, baseline=y + 1.6 * base, fill=True, color=color)
            base = top
        ticks.append(y + 0.8)
        labels.append(f"COLUMN {column}   array")
        for bit, color, label in used:
            y -= 1.0
            axes.axhline(y, color=LIGHT, linewidth=0.5, zorder=0)
            level = y + 0.85 * np.minimum(share[:, column, bit], 1.0)
            axes.stairs(level, edges, baseline=y, fill=True, color=color)
            ticks.append(y + 0.4)
            labels.append(label)
        y -= 0.5
        if column + 1 < columns:
            axes.axhline(y + 0.1, color=GREY, linewidth=0.8)
    axes.set_ylim(y + 0.3, 1.2)  # above the first column: a band for the layers' numbers
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.tick_params(axis="y", length=0)


def _time_axes(axes: Any, grid: GridConfig, cycles: int) -> None:
    """Label time in cycles below and in microseconds above."""
    axes.set_xlim(0, cycles)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="x", labelsize=9)
    axes.set_xlabel(
        f"cycles   (scale at the top: µs at {grid.clock_source} {grid.clock_hz / 1e6:g} MHz)",
        fontsize=9, labelpad=2,
    )  # fmt: skip
    scale = 1e6 / grid.clock_hz
    micro = axes.secondary_xaxis("top", functions=(lambda c: c * scale, lambda t: t / scale))
    micro.tick_params(labelsize=9)


def _layer_marks(axes: Any, program: Program, images: int, measured: Measured) -> str:
    """Mark where each layer's last output was written; return what the numbers stand for."""
    if stats.frame_count(program, images) != 1:
        return f"{images} images."
    ends = np.cumsum(stats.layer_cycles(program, images, measured))
    last, level = -1.0, 0
    for number, end in enumerate(ends, 1):
        axes.axvline(end, color=BLACK, linewidth=0.8, linestyle=(0, (4, 2)))
        near = end - last < 0.02 * measured.cycles
        level = level + 1 if near else 0
        axes.annotate(
            f"{number}", (end, axes.get_ylim()[1]), (-2, -3 - 11 * level), fontsize=9,
            textcoords="offset points", ha="right", va="top", weight="bold",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": BLACK},
        )  # fmt: skip
        last = end
    names = ", ".join(f"{number} {layer.name}" for number, layer in enumerate(program.layers, 1))
    return f"Dashed: the last output of layer {names}."
