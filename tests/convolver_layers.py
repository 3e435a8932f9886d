"""Layers for tests of the convolver: data, configurations, packets, results. No simulator."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from neuflow.blocks import convolver_model as model
from neuflow.blocks import parameters_model
from neuflow.blocks.parameters_model import PARAMETER_BEATS, Form
from neuflow.grid import TINY, GridConfig
from neuflow.layout import Kind, Scatter
from tests.helpers import Config


@dataclass(frozen=True)
class Layer:
    """One pass of one column, with its data."""

    channels: int = 1
    height: int = 5
    width: int = 5
    maps: int = 2
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    ring: bool = False
    slots: int = 0
    ahead: int = 0
    first: int = 0  # records that a rows packet of their own brings; 0: all come in one
    base: int = 0
    narrow: int = 0
    partial_in: int = 0
    partial_out: int = 0
    stream_weights: int = 0
    seed: int = 1
    extreme: bool = False
    by_block: int = 0  # channels of its own that each block (of TINY) has; 0: all have the same
    by_tap: int = 0  # channels that each map reads, by tap; 0: not by tap
    gather: int = 0  # by tap, last taps of kernel rows are worked together
    absent: int = 0  # bit k: channel k + 1 is stored, but not read
    closed: bool = False  # lanes go on from row end to row, and stored rows lie so that they may
    in_laps: bool = False  # with stride 2, phases are stored one after the other though no ring is there
    joined: bool = False  # rows of two channels are stored at once
    decimated: bool = False  # a single tap: only what it reads is sent, and stored
    beats: int = PARAMETER_BEATS  # that its maps' parameters need

    def data(self) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        low, high = (-32768, 32767) if self.extreme else (-300, 300)
        m = self.maps
        parameters = np.random.default_rng([self.seed, 2])  # whatever the size of the image
        data = {
            "image": rng.integers(
                low, high, (self.channels, self.height, self.width), endpoint=True
            ),
            "weight": rng.integers(
                low, high, (m, self.by_tap or self.by_block or self.read, *self.kernel), endpoint=True
            ),
            "bias": parameters.integers(-(2**40), 2**40, m)
            if self.extreme
            else parameters.integers(-9999, 9999, m),
            "m": parameters.integers(1, 5, m),
            "s": parameters.integers(3, 9, m) + (16 if self.extreme else 0),
            "zero": parameters.integers(-50, 50, m),
        }
        if self.beats < PARAMETER_BEATS:
            most = 1 << parameters_model.bias_bits(self.beats) - 1
            data["bias"] = np.resize([-most, most - 1, -1, 12345], m)
            data["zero"][:] = 0
            data["s"] += 20  # of sums, little stays
        if self.beats == 1:
            data["m"][:] = 1
        return data

    def form(self) -> Form:
        """Return how its weights packet says the parameters."""
        data = self.data()
        form = parameters_model.form(*(data[name] for name in ("bias", "m", "s", "zero")))
        assert form.beats <= self.beats
        return replace(form, beats=self.beats)

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation, "pads": self.pads}

    @property
    def connections(self) -> np.ndarray[Any, Any]:
        """Channels [maps, by_tap] that each map reads, in the order in which it does."""
        rng = np.random.default_rng([self.seed, 1])
        return np.array([rng.permutation(self.channels)[: self.by_tap] for _ in range(self.maps)])

    @property
    def read(self) -> int:
        """Channels that are read."""
        return self.channels - self.absent.bit_count()

    @property
    def every(self) -> int:
        """Of the image's rows the first of every so many is sent."""
        return self.stride if self.decimated else 1

    @property
    def out_shape(self) -> tuple[int, int]:
        ky, kx = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        height = (self.height + self.pads[0] + self.pads[2] - ky) // self.stride + 1
        width = (self.width + self.pads[1] + self.pads[3] - kx) // self.stride + 1
        return height, width


def configs(layer: Layer, grid: GridConfig) -> list[Config]:
    """Derive the four configurations, straight from docs/machine.md."""
    s = layer.stride
    height, width = layer.out_shape
    stored_width, stored_height = -(-layer.width // s), -(-layer.height // s)
    lanes = pitch = max(width, stored_width)
    if layer.closed:
        lanes, apart = width, grid.maps - 1 if layer.by_tap else 0
        pitch = next(n for n in range(pitch, grid.row_words) if (n - width) % grid.row_banks == apart)
    top, left = layer.pads[:2]
    groups = model.groups(height, width, lanes, grid.pixels)
    blocks = layer.maps if layer.by_tap else -(-layer.maps // grid.maps)
    # The last group needs all rows, read or not.
    need = max((layer.kernel[0] - 1) * layer.dilation[0] - top + 1, layer.height - (height - 1) * s)

    def rows_at(position: int, offset: int) -> int:
        return min(max(position // lanes * s + offset, 0), layer.height)

    live = max(
        rows_at((g + 1) * grid.pixels - 1, need) - rows_at(g * grid.pixels, -top)
        for g in range(groups)
    )
    if layer.ring:
        ring_rows = live
        ring = -(-(-(-ring_rows // s) * pitch) // grid.row_banks) * grid.row_banks
        size = ring
    else:
        ring_rows, ring, size = layer.height, 0, stored_height * pitch
    if layer.decimated:
        assert layer.kernel == (1, 1) and not layer.ring and not any(layer.pads)
        lanes, pitch, need, size = width, width, 1, height * width
        ring_rows = height
    modulo = ring or grid.row_words
    slots = layer.slots or height
    map_step = slots * width
    while map_step % grid.maps != 1 % grid.maps:
        map_step += 1
    assert -(-layer.maps // grid.maps) * grid.maps * map_step <= grid.reorder_words
    scatter, sent = Scatter.PHASES if s > 1 else Scatter.ROW, layer.height
    stored = s
    if s == 2 and not (layer.ring or layer.in_laps or layer.decimated):
        scatter = Scatter.BOTH_PHASES
        while size % grid.row_banks != grid.bus_words // 2:
            size += 1
    if layer.joined:
        assert s == 1 and not (layer.ring or layer.by_tap)
        scatter = Scatter.ROWS
        while (size - layer.width) % grid.row_banks:
            size += 1
    if layer.decimated:
        scatter, sent, s = Scatter.FIRST_PHASE, height, 1
    assert s * s * layer.channels * size <= grid.row_words
    steps = {"channel_step": s * s * size, "phase_x_step": size, "phase_y_step": s * size}
    rows = dict(
        source=0, ahead=layer.ahead, two=int(layer.first > 0), scatter=scatter, width=layer.width,
        channels=layer.channels, rows=sent, base=layer.base, ring_words=ring, pitch=pitch % modulo,
        ring_rows=ring_rows, stride=stored, x_step=1, **steps,
    )  # fmt: skip
    if layer.decimated:
        layer = replace(layer, height=height, width=width)
    array = dict(
        groups=groups, blocks=blocks, channels=layer.by_block or layer.read,
        by_block=int(layer.by_block > 0), by_tap=int(layer.by_tap > 0), gather=layer.gather,
        absent0=layer.absent, absent1=0, kernel_y=layer.kernel[0],
        kernel_x=layer.kernel[1], pitch=lanes, width=layer.width, height=layer.height, stride=s,
        tap_x=-left, tap_y=-top, dilation_x=layer.dilation[1], dilation_y=layer.dilation[0],
        base=layer.base, ring_words=ring, start=((-top // s) * pitch + -left // s) % modulo,
        step_x=layer.dilation[1] // s, step_y=layer.dilation[0] // s * pitch % modulo,
        row_pitch=pitch % modulo, phase_x=-left % s, phase_y=-top % s,
        phase_dx=layer.dilation[1] % s, phase_dy=layer.dilation[0] % s, need=need, release=-top,
        rows=layer.height, stream_weights=layer.stream_weights, width_out=width,
        height_out=height, maps=layer.maps - (blocks - 1) * grid.maps, **steps,
    )  # fmt: skip
    if layer.by_tap:
        assert s == layer.dilation[1] == 1 and left == layer.pads[3] == 0 and layer.kernel[0] > 1
        step = grid.maps * (1 + layer.gather)
        if layer.gather:
            assert layer.kernel[1] == step + 1 and layer.kernel[0] > grid.maps and not layer.closed
        array |= {
            "channels": layer.by_tap, "by_block": 1,
            "maps": layer.kernel[1 - layer.gather] % grid.maps,
            "kernel_x": model.tap_steps(layer.kernel[1], grid.maps, bool(layer.gather)),
            "dilation_x": step, "step_x": step,
            "base": layer.base + int(layer.connections[0, 0]) * size,
        }  # fmt: skip
    drain = {
        "groups": groups, "blocks": blocks, "maps": layer.maps, "pitch": lanes, "width": width,
        "height": height, "partial_in": layer.partial_in, "partial_out": layer.partial_out,
        "narrow": layer.narrow, "by_tap": int(layer.by_tap > 0), "slots": slots, "map_step": map_step,
        **asdict(layer.form()),
    }  # fmt: skip
    return [
        Config(Kind.CONV_ROWS, rows),
        Config(Kind.CONV_WEIGHTS, {"source": 0, "lead": blocks * drain["beats"]}),
        Config(Kind.CONV_ARRAY, array),
        Config(Kind.CONV_DRAIN, drain),
    ]


def rows_packets(layer: Layer, data: dict[str, Any]) -> list[list[int]]:
    """Return the one or two rows packets of a layer's data: for y, for channel, for x."""
    records = data["image"][:, :: layer.every].transpose(1, 0, 2)
    parts = [records[: layer.first], records[layer.first :]] if layer.first else [records]
    return [part.reshape(-1).tolist() for part in parts]


def weights_packet(layer: Layer, data: dict[str, Any], grid: GridConfig) -> list[int]:
    """Return the weights packet of a layer with ``data``."""
    if layer.by_tap:
        order = layer.connections.reshape(-1)
        step = configs(layer, grid)[0].values["channel_step"]
        following = (np.roll(order, -1) - order[0]).reshape(layer.maps, -1) * step
        lanes = {"weight": model.by_tap(data["weight"], following, grid.maps, bool(layer.gather))}
        for name in ("bias", "m", "s", "zero"):
            lanes[name] = np.zeros(layer.maps * grid.maps, np.int64)
            lanes[name][:: grid.maps] = data[name]
        data = data | lanes
    parts = (data[k] for k in ("weight", "bias", "m", "s", "zero"))
    return model.weight_packet(*parts, grid.maps, layer.form())


def expected(layer: Layer) -> list[int]:
    data = layer.data()
    if layer.by_block:
        weight = np.zeros((layer.maps, layer.channels, *layer.kernel), np.int64)
        for n, own in enumerate(data["weight"]):
            first = n // TINY.maps * layer.by_block
            weight[n, first : first + layer.by_block] = own
        data["weight"] = weight
    if layer.by_tap:
        weight = np.zeros((layer.maps, layer.channels, *layer.kernel), np.int64)
        for own, read, to in zip(data["weight"], layer.connections, weight, strict=True):
            to[read] = own
        data["weight"] = weight
    data["image"] = data["image"][[c for c in range(layer.channels) if not layer.absent << 1 >> c & 1]]
    words = model.convolve(**data, bits=8 if layer.narrow else 16, **layer.geometry)
    return words.transpose(1, 0, 2).reshape(-1).tolist()


LAYERS = {
    "one_pixel": Layer(height=1, width=1, kernel=(1, 1), maps=1),
    "kernel_is_image": Layer(height=3, width=3, maps=3),
    "valid": Layer(),
    "same": Layer(pads=(1, 1, 1, 1), channels=2, maps=3),
    "even_kernel": Layer(kernel=(4, 2), pads=(1, 0, 2, 1), width=7),
    "wide_padding": Layer(kernel=(3, 3), pads=(2, 2, 2, 2), height=2, width=3),
    "ring": Layer(height=12, width=6, channels=2, ring=True, pads=(1, 1, 1, 1), slots=3),
    "ring_valid": Layer(height=13, width=7, channels=3, ring=True, slots=3),
    "few_slots": Layer(height=9, width=11, maps=4, slots=2, pads=(1, 1, 1, 1)),
    "stride": Layer(height=9, width=8, stride=2, kernel=(3, 3), channels=2),
    "stride_in_laps": Layer(height=9, width=8, stride=2, kernel=(3, 3), channels=2, in_laps=True),
    "stride_odd": Layer(height=7, width=11, stride=2, kernel=(3, 2), channels=3, base=37),
    "stride_padded_ring": Layer(
        height=12, width=9, stride=2, kernel=(5, 3), pads=(2, 1, 2, 1), ring=True
    ),
    "stride_3": Layer(height=11, width=10, stride=3, kernel=(2, 4), pads=(0, 1, 1, 2)),
    "stride_5": Layer(height=6, width=23, stride=5, kernel=(1, 6), channels=2),
    "decimated": Layer(height=7, width=10, stride=2, kernel=(1, 1), channels=3, decimated=True),
    "decimated_by_3": Layer(height=7, width=11, stride=3, kernel=(1, 1), decimated=True),
    "dilation": Layer(height=9, width=9, dilation=(2, 3)),
    "dilated_stride": Layer(
        height=11, width=11, dilation=(3, 2), stride=2, kernel=(2, 3), pads=(1, 2, 1, 2)
    ),
    "pointwise": Layer(kernel=(1, 1), channels=7, maps=5, width=9, height=2),
    "joined": Layer(channels=4, width=3, maps=3, pads=(1, 1, 1, 1), joined=True),
    "joined_pixels": Layer(channels=7, width=1, maps=3, kernel=(2, 1), joined=True),
    "by_block": Layer(channels=9, maps=6, by_block=3, height=4, slots=2),
    "absent": Layer(channels=7, maps=3, absent=0b100110, pads=(1, 1, 1, 1)),
    "absent_run": Layer(channels=9, maps=3, absent=0b01110111, kernel=(2, 2)),
    "by_tap": Layer(channels=5, maps=3, by_tap=2, width=7, height=6, kernel=(3, 3)),
    "by_tap_even": Layer(channels=3, maps=2, by_tap=3, width=9, kernel=(2, 4), base=64),
    "by_tap_short": Layer(channels=3, maps=4, by_tap=1, width=6, height=4, kernel=(2, 1), narrow=1),
    "by_tap_ring": Layer(
        height=11, width=8, channels=4, maps=3, by_tap=2, ring=True, kernel=(4, 5), pads=(2, 0, 1, 0),
        slots=3,
    ),
    "by_tap_extremes": Layer(
        channels=4, maps=3, by_tap=4, extreme=True, kernel=(3, 5), width=8, dilation=(2, 1), height=6
    ),
    "gather": Layer(channels=5, maps=3, by_tap=2, gather=1, width=9, height=7, kernel=(3, 5)),
    "gather_ring": Layer(
        height=11, width=8, channels=4, maps=3, by_tap=3, gather=1, ring=True, kernel=(5, 5),
        pads=(2, 0, 1, 0), slots=3,
    ),
    "gather_extremes": Layer(
        channels=4, maps=3, by_tap=1, gather=1, extreme=True, kernel=(3, 5), width=8, dilation=(2, 1),
        height=6,
    ),
    "closed": Layer(closed=True, width=9, height=7, channels=2, slots=3),
    "closed_ring": Layer(
        closed=True, height=14, width=9, channels=2, maps=3, ring=True, kernel=(4, 4), slots=3
    ),
    "closed_padded": Layer(
        closed=True, height=9, width=12, kernel=(3, 5), pads=(2, 1, 1, 1), dilation=(1, 2), maps=3,
        slots=3,
    ),
    "closed_far": Layer(closed=True, height=6, width=15, kernel=(2, 10), extreme=True, slots=3),
    "closed_stride": Layer(
        closed=True, height=15, width=13, stride=2, kernel=(5, 4), pads=(1, 0, 2, 0), ring=True, slots=3
    ),
    "closed_twice": Layer(closed=True, width=6, height=8, channels=2, maps=3, slots=4),
    "closed_twice_ring": Layer(
        closed=True, height=13, width=7, kernel=(3, 5), channels=2, ring=True, extreme=True, slots=4
    ),
    "closed_by_tap": Layer(
        closed=True, channels=3, maps=3, by_tap=2, height=8, width=10, kernel=(3, 4), pads=(1, 0, 2, 0),
        slots=3,
    ),
    "closed_by_tap_ring": Layer(
        closed=True, height=11, width=11, channels=4, maps=2, by_tap=2, ring=True, kernel=(3, 7), slots=3
    ),
    "closed_by_tap_short": Layer(
        closed=True, channels=2, maps=2, by_tap=1, height=7, width=8, kernel=(2, 2), extreme=True,
        slots=3,
    ),
    "narrow": Layer(narrow=1, pads=(1, 1, 1, 1)),
    "one_beat": Layer(beats=1, maps=5),
    "two_beats": Layer(beats=2, maps=5, channels=2),
    "one_beat_by_tap": Layer(beats=1, channels=5, maps=3, by_tap=2, width=7, height=6),
    "extremes": Layer(extreme=True, channels=3, maps=4),
    "column_vector": Layer(height=1, width=1, channels=20, kernel=(1, 1), maps=6, stream_weights=1),
}
