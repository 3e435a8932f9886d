"""Random quantised graphs: every operation, any order, sizes that overflow small grids."""

from __future__ import annotations

import numpy as np

from tests.quantgraphs import Builder


class RandomGraph:
    """A network of random operations, 1 to ``most``; ``outputs`` are its outputs."""

    names = ("conv", "conv", "conv", "pool", "map", "unary", "alu", "dense", "reshape")

    def __init__(self, seed: int, most: int = 5) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Builder(seed, bits=int(self.rng.choice([16, 16, 16, 8])))
        shape = (self.upto(7), self.upto(14), self.upto(16))
        if self.rng.random() < 0.1:
            shape = (self.upto(60), 1, 1)
        self.tensor = self.net.input(*shape)
        self.begin(shape)
        while True:
            for _ in range(self.upto(most)):
                name = self.rng.choice(self.names)
                getattr(self, f"add_{name}")(*self.net.tensors[self.tensor].shape)
            if self.net.nodes:
                break
        for place, node in enumerate(self.net.nodes):
            if "weight" in node.attrs:
                self.net.shorten(node, beats=(seed + place) % 3 + 1)
        made = [node.output for node in self.net.nodes]
        some = [name for name in made if self.rng.random() < 0.15]
        self.outputs = tuple(dict.fromkeys([*some, made[-1]]))

    def begin(self, shape: tuple[int, int, int]) -> None:
        """Add what the network must begin with."""

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


class RandomConv(RandomGraph):
    """A convolution, plain, grouped or depthwise, and at most two operations behind it."""

    names = ("pool", "map", "unary", "alu", "conv")

    def __init__(self, seed: int) -> None:
        super().__init__(seed, most=2)

    def begin(self, shape: tuple[int, int, int]) -> None:
        make = self.add_depthwise if self.rng.random() < 0.3 else self.add_conv
        while not self.net.nodes:
            make(*shape)

    def add_depthwise(self, c: int, h: int, w: int) -> None:
        kernel, stride = (self.upto(5), self.upto(5)), (self.upto(3), self.upto(3))
        pads = tuple(self.upto(2, 0) for _ in range(4))
        if h + pads[0] + pads[2] >= kernel[0] and w + pads[1] + pads[3] >= kernel[1]:
            maps = c * self.upto(2)
            self.tensor = self.net.conv(self.tensor, maps, kernel, stride, pads=pads, groups=c)


class RandomBranches(RandomGraph):
    """A network whose branches join: concats of concats, inputs twice, means, zero kernels."""

    names = ("conv", "same", "same", "depthwise", "pool", "mean", "map", "alu", "concat", "concat",
             "concat", "back", "dense", "reshape")  # fmt: skip

    def __init__(self, seed: int) -> None:
        super().__init__(seed, most=12)

    def add_same(self, c: int, *_: int) -> None:
        """A convolution that keeps height and width, so that its result can be joined."""
        dilation = (self.upto(2), self.upto(2))
        pads = (dilation[0], dilation[1]) * 2
        self.tensor = self.net.conv(self.tensor, self.upto(6), (3, 3), (1, 1), dilation, pads)
        weight = self.net.nodes[-1].attrs["weight"]
        weight[self.rng.random(weight.shape[:2]) < self.rng.choice([0, 0.5, 0.9])] = 0

    def add_depthwise(self, c: int, *_: int) -> None:
        maps = c * self.upto(2)
        self.tensor = self.net.conv(self.tensor, maps, (3, 3), pads=(1, 1, 1, 1), groups=c)

    def add_mean(self, c: int, h: int, w: int) -> None:
        ky, kx = self.upto(4, 2), self.upto(4, 2)
        if h >= ky and w >= kx:
            pads = tuple(self.upto(k - 1, 0) for k in (ky, kx, ky, kx))
            self.tensor = self.net.mean(self.tensor, (ky, kx), (self.upto(3), self.upto(3)), pads)

    def add_concat(self, c: int, h: int, w: int) -> None:
        alike = [name for name, t in self.net.tensors.items() if t.shape[1:] == (h, w)]
        parts = [self.tensor, *map(str, self.rng.choice(alike, self.upto(3)))]
        self.rng.shuffle(parts)
        if sum(self.net.tensors[part].shape[0] for part in parts) <= 40:
            self.tensor = self.net.concat(*parts)

    def add_back(self, *_: int) -> None:
        """Go on from an earlier tensor."""
        self.tensor = str(self.rng.choice(list(self.net.tensors)))


class RandomTable(RandomGraph):
    """A convolution with a table of connections, as the array does tap by tap, and what follows it."""

    names = ("pool", "map", "unary", "alu", "table")

    def __init__(self, seed: int) -> None:
        super().__init__(seed, most=2)

    def begin(self, shape: tuple[int, int, int]) -> None:
        while not self.net.nodes:
            self.add_table(*shape)
            shape = (self.upto(9), self.upto(14), self.upto(16))
            if not self.net.nodes:
                self.net.tensors.clear()
                self.net.inputs.clear()
                self.tensor = self.net.input(*shape)

    def add_table(self, c: int, h: int, w: int) -> None:
        kernel, dilation = (self.upto(5, 2), self.upto(6)), (self.upto(2), 1)
        pads = (self.upto(2, 0), 0, self.upto(2, 0), 0)
        if h + pads[0] + pads[2] <= (kernel[0] - 1) * dilation[0] or w < kernel[1]:
            return
        maps = self.upto(9)
        self.tensor = self.net.conv(self.tensor, maps, kernel, (1, 1), dilation, pads)
        weight = self.net.nodes[-1].attrs["weight"]
        for own in weight:
            own[self.rng.permutation(c)[self.upto(c) :]] = 0
