"""Work memory by liveness: buffers that live at different times share words."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuflow.compiler.geometry import round_up
from neuflow.grid import GridConfig
from neuflow.ir import Shape


class Space(enum.Enum):
    """What an address counts from."""

    WEIGHTS = "weights"  # the packed weights in the device section
    WORK = "work"
    INPUT = "input"
    OUTPUT = "output"
    SCRATCHPAD = "scratchpad"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: (image, c, y, x) is at base + ``of(image)`` + y * ``record`` + ...

    All in words from the beginning of ``space``. ``size``: words from base to the end. ``image``: words
    from an image to the next of its band, which has ``side``; ``band``: from a band to the next.
    """

    space: Space
    base: int
    size: int
    image: int
    record: int
    channel: int
    pixel: int
    side: int = 1
    band: int = 0

    def of(self, image: int) -> int:
        """Return the words from base to an image."""
        band, within = divmod(image, self.side)
        return band * self.band + within * self.image

    def part(self, channel: int) -> Place:
        """Return the place of a tensor that lies in this one's records from ``channel`` on."""
        words = channel * self.channel
        return replace(self, base=self.base + words, size=self.size - words)

    def view(self, shape: Shape) -> Place:
        """Return the place of the same values as ``shape``, both of height 1."""
        # With the batch along x both are 1 x 1, hence the same.
        return self if self.image == 1 else replace(self, channel=shape[2])

    def batched(self, side: int) -> Place:
        """Return the view of a batched chain: its rows are bands of ``side`` images, its columns these.

        Its channels are the values of an image.
        """
        record = self.band if side == self.side else side * self.image
        return Place(self.space, self.base, self.size, 0, record, self.pixel, self.image)


def side_by_side(batch: int, grid: GridConfig) -> int:
    """Return how many images of a batch make a band: they lie side by side, word by word.

    As many as a group of lanes takes, in whole beats: so dense layers begin when the first band is
    there. All, where bands would be unequal.
    """
    side = round_up(grid.pixels, grid.bus_words)
    return side if batch % side == 0 else batch


def tensor_place(
    space: Space, base: int, shape: Shape, batch: int, bus_words: int, side: int = 0
) -> Place:
    """Lay out a tensor: images one after another, each in records (y) of C x W words.

    ``side``: not 0 if so many images lie side by side, each value beside that of the next image: for
    dense layers over a batch. 1 x 1 extents always do, all of them if nothing is said.
    """
    channels, height, width = shape
    if side or (batch > 1 and (height, width) == (1, 1)):
        side = side or batch
        row, band = width * side, height * channels * width * side
        size = round_up(batch // side * band, bus_words)
        return Place(space, base, size, 1, channels * row, row, pixel=side, side=side, band=band)
    record = round_up(channels * width, bus_words)
    image = height * record
    size = batch * image
    return Place(space, base, size, image, record, width, pixel=1, side=batch, band=size)


@dataclass(frozen=True)
class Buffer:
    """A buffer of ``size`` words that lives from step ``first`` to step ``last``, both included."""

    name: str
    size: int
    first: int
    last: int


def pack(buffers: Sequence[Buffer], unit: int) -> tuple[dict[str, int], int]:
    """Give every buffer an offset, a multiple of ``unit``; return them and the words in use.

    The largest first, each at the lowest gap among the buffers that live with it.
    """
    offsets: dict[str, int] = {}
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first, b.name)):
        at = 0
        rivals = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
        for rival in sorted(rivals, key=lambda b: offsets[b.name]):
            if at + buffer.size <= offsets[rival.name]:
                break
            at = max(at, round_up(offsets[rival.name] + rival.size, unit))
        offsets[buffer.name] = at
        placed.append(buffer)
    used = max((offsets[b.name] + b.size for b in placed), default=0)
    return offsets, round_up(used, unit)
