"""Random grids: parameters of any value that fits the others, but small, and a memory of any speed."""

from __future__ import annotations

import numpy as np

from neuflow.grid import GridConfig, MemoryConfig


def random_memory(rng: np.random.Generator) -> MemoryConfig:
    """Return a memory, slow or fast, that answers late or soon."""
    per_beat = int(rng.choice([1, 3, 20, 32]))
    return MemoryConfig(
        tokens=int(rng.integers(1, per_beat + 1)),
        tokens_per_beat=per_beat,
        shared=bool(rng.integers(2)),
        read_latency=int(rng.choice([1, 2, 10, 40, 100])),
        write_latency=int(rng.choice([1, 5, 20, 77])),
        outstanding=int(rng.choice([1, 2, 4, 16, 33])),
    )


def random_grid(seed: int) -> GridConfig:
    """Return a grid on which layers of some thousand words fit, most of them cut."""
    rng = np.random.default_rng(seed)

    def one(*values: int) -> int:
        return int(rng.choice(values))

    maps = one(1, 2, 4, 8)
    bus, banks = 2 * maps, max(one(4, 8, 16, 32, 64), 4 * maps)
    burst = one(1, 2, 4, 8, 16)
    dma = burst * one(2, 4, 8)
    return GridConfig(
        f"random{seed}",
        columns=one(1, 2, 3, 4, 5),
        maps=maps,
        pixels=int(rng.integers(1, min(banks, 31) + 1)),
        row_banks=banks,
        row_words=one(512, 1024, 4096, 16384),
        weight_words=bus * one(16, 32, 64, 200, 800),
        weight_blocks=one(3, 8, 16, 40),
        reorder_words=maps * one(30, 64, 200, 800),
        window_words=one(16, 50, 64, 300),
        fifo_tiles=one(0, 0, 1, 2, 3),
        fifo_words=8 * maps * one(1, 2, 5, 16),
        bus_words=bus,
        burst_beats=burst,
        dma_beats=dma,
        rows_beats=dma * one(1, 2, 4),
        scratchpad_words=one(0, 1) * 2 * burst * bus * one(1, 2, 8, 32),
        config_queue=one(1, 2),
        memory=random_memory(rng),
    )
