"""Eight small grids, as different as they may be: what is exact on all of them is exact."""

from __future__ import annotations

from dataclasses import replace

from neuflow.grid import TINY, GridConfig

GRIDS: dict[str, GridConfig] = {
    grid.name: grid
    for grid in (
        TINY,
        # One column, no FIFO tile, a queue of one configuration.
        replace(TINY, name="lone", columns=1, fifo_tiles=0, config_queue=1),
        # The smallest buffers; only small layers fit.
        replace(
            TINY, name="least", row_words=64, weight_words=16, weight_blocks=2, reorder_words=16,
            window_words=16, fifo_words=16, burst_beats=1, dma_beats=2, rows_beats=2,
            config_queue=1, scratchpad_words=0,
        ),  # fmt: skip
        # Links of one word, a bus of two.
        replace(
            TINY, name="thin", columns=4, maps=1, pixels=3, row_banks=4, bus_words=2, row_words=256,
            weight_words=96, burst_beats=8, dma_beats=16,
        ),  # fmt: skip
        # Links of four words, a number of columns that is no power of two, pixels that fill no bank row.
        replace(
            TINY, name="three", columns=3, maps=4, pixels=7, row_banks=16, bus_words=8, row_words=1024,
            weight_words=512, reorder_words=256, fifo_tiles=2, fifo_words=128,
        ),  # fmt: skip
        # As many pixels as banks; long bursts.
        replace(
            TINY, name="broad", columns=2, pixels=16, row_banks=16, reorder_words=256, burst_beats=16,
            dma_beats=32, rows_beats=64, window_words=256,
        ),  # fmt: skip
        # One pixel at a time: a vector machine.
        replace(
            TINY, name="vector", columns=2, maps=4, pixels=1, row_banks=16, bus_words=8,
            weight_words=512, scratchpad_words=0,
        ),  # fmt: skip
        # Links of eight words, a queue of one.
        replace(
            TINY, name="octet", columns=1, maps=8, pixels=6, row_banks=32, bus_words=16, row_words=2048,
            weight_words=1024, reorder_words=512, fifo_words=256, window_words=128, config_queue=1,
        ),  # fmt: skip
    )
}
