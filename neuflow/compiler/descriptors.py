"""Strided walks through memory: fields of READ and WRITE for boxes of tensors."""

from __future__ import annotations

from neuflow.compiler.allocate import Place
from neuflow.compiler.fit import limit
from neuflow.compiler.geometry import ceil_div
from neuflow.compiler.mapping import Region
from neuflow.ir import Shape
from neuflow.layout import READ

MOST_RUN, MOST_COUNT = limit(READ, "run"), limit(READ, "count0")
"""Words and repetitions at most of a READ, and of a WRITE, whose fields are the same."""


def descriptor(base: int, dims: list[tuple[int, int]]) -> dict[str, int]:
    """Return the fields of a strided walk over ``dims``: (count, step in words), outermost first.

    Dimensions that continue each other are merged, as far as a field holds both; at most three
    counts may be left.
    """
    merged: list[tuple[int, int]] = []
    for count, step in dims:
        if count == 1:
            continue
        most = MOST_RUN if step == 1 else MOST_COUNT
        if merged and merged[-1][1] == count * step and merged[-1][0] * count <= most:
            merged[-1] = (merged[-1][0] * count, step)
        else:
            merged.append((count, step))
    run = merged.pop()[0] if merged and merged[-1][1] == 1 else 1
    if len(merged) > 3:
        raise ValueError(f"READ: {len(merged)} counts do not fit into 3")
    fields = {"base": base, "run": run}
    padded = [*reversed(merged), *[(1, 0)] * (3 - len(merged))]
    for i, (count, step) in enumerate(padded):
        fields |= {f"count{i}": count, f"step{i}": step}
    return fields


def box(place: Place, image: int, region: Region, every: int = 1) -> dict[str, int]:
    """Descriptor of a box of a tensor in the order of streams: for y, for map, for x.

    ``every``: of its rows only the first of every so many.
    """
    base = (
        place.base
        + place.of(image)
        + region.rows.lo * place.record
        + region.maps.lo * place.channel
        + region.cols.lo * place.pixel
    )
    return descriptor(
        base,
        [
            (ceil_div(region.rows.size, every), every * place.record),
            (region.maps.size, place.channel),
            (region.cols.size, place.pixel),
        ],
    )


def linear(place: Place, words: int) -> dict[str, int]:
    """Descriptor of ``words`` contiguous words."""
    return descriptor(place.base, [(words, 1)])


def in_chw_order(place: Place, image: int, shape: Shape) -> dict[str, int]:
    """Descriptor of a whole image in C, H, W order, whatever the order in memory."""
    channels, height, width = shape
    return descriptor(
        place.base + place.of(image),
        [(channels, place.channel), (height, place.record), (width, place.pixel)],
    )
