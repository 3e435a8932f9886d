"""Model of the DMA's address generation: which words a descriptor names, in which bursts.

A descriptor is a mapping with the fields of ``layout.READ`` (or WRITE). Everything here is plain
Python and NumPy; ``blocks/dma.py`` does the same in gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from neuflow.grid import GridConfig

Descriptor = Mapping[str, int]


def runs(descriptor: Descriptor) -> Iterator[int]:
    """Yield the first word address of every run, in order."""
    for i2 in range(descriptor["count2"]):
        for i1 in range(descriptor["count1"]):
            for i0 in range(descriptor["count0"]):
                yield (
                    descriptor["base"]
                    + i0 * descriptor["step0"]
                    + i1 * descriptor["step1"]
                    + i2 * descriptor["step2"]
                )


def word_addresses(descriptor: Descriptor) -> NDArray[np.int64]:
    """Return the address of every word of the packet, in order."""
    at = np.arange(descriptor["run"], dtype=np.int64) + descriptor["base"]
    for level in range(3):
        steps = np.arange(descriptor[f"count{level}"], dtype=np.int64) * descriptor[f"step{level}"]
        at = (steps[:, None] + at).reshape(-1)
    return at


def bursts(descriptor: Descriptor, grid: GridConfig) -> list[tuple[int, int]]:
    """Return (first beat address, beats) of every burst, in order.

    A run is cut where a beat address is a multiple of ``burst_beats``. A burst of that length fits
    in 4 KB and both are powers of 2, hence no burst crosses 4 KB.
    """
    result = []
    for start in runs(descriptor):
        beat = start // grid.bus_words
        end = (start + descriptor["run"] - 1) // grid.bus_words + 1
        while beat < end:
            beats = min(end, (beat // grid.burst_beats + 1) * grid.burst_beats) - beat
            result.append((beat, beats))
            beat += beats
    return result
