"""Random quantised graphs: every operation, any order, sizes that overflow small grids."""

from __future__ import annotations

import numpy as np

from tests.quantgraphs import Builder


class RandomGraph:
    """A network of 1 to 5 random operations; ``net`` has it, ``outputs`` are its outputs."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Builder(seed, bits=int(self.rng.choice([16, 16, 16, 8])))
        shape = (self.upto(7), self.upto(14), self.upto(16))
        if self.rng.random() < 0.1:
            shape = (self.upto(60), 1, 1)
        self.tensor = self.net.input(*shape)
        while not self.net.nodes:
            for _ in range(self.upto(5)):
                name = self.rng.choice(["conv", "conv", "conv", "pool", "map", "unary", "alu",
                                        "dense", "reshape"])  # fmt: skip
                getattr(self, f"add_{name}")(*self.net.tensors[self.tensor].shape)
        made = [node.output for node in self.net.nodes]
        some = [name for name in made if self.rng.random() < 0.15]
        self.outputs = tuple(dict.fromkeys([*some, made[-1]]))

    def upto(self, high: int, low: int = 1) -> int:
        return int(self.rng.integers(low, high + 1))

    def divisor(self, number: int) -> int:
        return int(self.rng.choice([n for n in range(1, number + 1) if number % n == 0]))

    def add_conv(self, c: int, h: int, w: int) -> None:
        kernel, dilation = (self.upto(5), self.upto(5)), (self.upto(3), self.upto(3))
        stride = (self.upto(3),) * 2
        if self.rng.random() < 0.2:
            stride = (self.upto(4), self.upto(4))
        pads = tuple(self.upto(3, 0) for _ in range(4)) if self.rng.random() < 0.6 else (0,) * 4
        padded = (h + pads[0] + pads[2], w + pads[1] + pads[3])
        if any(n <= (k - 1) * d for n, k, d in zip(padded, kernel, dilation, strict=True)):
            return
        groups = self.divisor(c) if self.rng.random() < 0.3 else 1
        maps = groups * self.upto(6)
        self.tensor = self.net.conv(self.tensor, maps, kernel, stride, dilation, pads, groups)

    def add_pool(self, c: int, h: int, w: int) -> None:
        ky, kx = self.upto(4), self.upto(4)
        pads = (*(self.upto(k - 1, 0) for k in (ky, kx)), *(self.upto(k - 1, 0) for k in (ky, kx)))
        if h + pads[0] + pads[2] >= ky and w + pads[1] + pads[3] >= kx:
            kind, stride = str(self.rng.choice(["max", "sum"])), (self.upto(4), self.upto(4))
            self.tensor = self.net.pool(self.tensor, kind, (ky, kx), stride, pads)

    def add_map(self, *_: int) -> None:
        make = self.net.relu if self.rng.random() < 0.5 else self.net.odd_map
        self.tensor = make(self.tensor)

    def add_unary(self, *_: int) -> None:
        kind = str(self.rng.choice(["abs", "square"]))
        shifts = {"shift": self.upto(9, 0), "shift_a": self.upto(3, 0)}
        self.tensor = self.net.alu(kind, self.tensor, **shifts)

    def add_alu(self, *shape: int) -> None:
        alike = [name for name, t in self.net.tensors.items() if t.shape == shape]
        pair = [self.tensor, str(self.rng.choice(alike))]
        self.rng.shuffle(pair)
        kind = str(self.rng.choice(["add", "sub", "mul", "div", "max", "min"]))
        shifts = {name: self.upto(3, 0) for name in ("shift_a", "shift_b", "shift")}
        self.tensor = self.net.alu(kind, *map(str, pair), **shifts)

    def add_dense(self, *_: int) -> None:
        self.tensor = self.net.dense(self.tensor, self.upto(20))

    def add_reshape(self, c: int, h: int, w: int) -> None:
        channels = self.divisor(c * h * w)
        rest = c * h * w // channels
        height = self.divisor(rest)
        self.tensor = self.net.reshape(self.tensor, channels, height, rest // height)
