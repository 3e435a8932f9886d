"""Work memory by liveness: buffers that live at different times share words."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuflow.compiler.geometry import round_up
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
    """Where a tensor lies: (image, c, y, x) is at base + image * ``image`` + y * ``record`` + ...

    All in words from the beginning of ``space``. ``size``: words from base to the end.
    """

    space: Space
    base: int
    size: int
    image: int
    record: int
    channel: int
    pixel: int

    def part(self, channel: int) -> Place:
        """Return the place of a tensor that lies in this one's records from ``channel`` on."""
        words = channel * self.channel
        return replace(self, base=self.base + words, size=self.size - words)

    def view(self, shape: Shape) -> Place:
        """Return the place of the same values as ``shape``, both of height 1."""
        # With the batch along x both are 1 x 1, hence the same.
        return self if self.image == 1 else replace(self, channel=shape[2])

    def along_x(self) -> Place:
        """Return the view of a batched chain, whose columns are the images."""
        return Place(self.space, self.base, self.size, 0, self.record, self.channel, self.image)


def tensor_place(
    space: Space, base: int, shape: Shape, batch: int, bus_words: int, interleaved: bool = False
) -> Place:
    """Lay out a tensor: records (y) of C x W words; 1 x 1 extents have the batch along x.

    ``interleaved``: so has every pixel, for dense layers over a batch: records of C x W x batch words.
    """
    channels, height, width = shape
    if interleaved:
        row = width * batch
        size = round_up(height * channels * row, bus_words)
        return Place(space, base, size, 1, record=channels * row, channel=row, pixel=batch)
    if batch > 1 and (height, width) == (1, 1):
        size = round_up(channels * batch, bus_words)
        return Place(space, base, size, image=1, record=size, channel=batch, pixel=1)
    record = round_up(channels * width, bus_words)
    image = height * record
    return Place(space, base, batch * image, image, record, channel=width, pixel=1)


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
