"""Bench of the DMA ports: random strided copies through the tiles, and all error paths.

A copy goes operand line -> routers -> write port, on one of three ways, one of them through the
neighbouring column.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np

from neuflow.blocks import dma_model
from neuflow.grid import TINY
from neuflow.layout import (
    IDENTITY,
    READ,
    ROUTE,
    WRITE,
    Error,
    Kind,
    Opcode,
    Operand,
    Relocate,
    RouterIn,
    RouterOut,
    Row,
)  # fmt: skip
from sim.machine import DONE, PAGE_BYTES, PAGE_WORDS, Machine, config, end, instruction

PROGRAM, INPUT, OUTPUT = (page * PAGE_BYTES for page in (1, 8, 16))
FRAMES, RING = 3, 2
TARGET_WORDS = 384
"""Words of the output that one copy may write to."""
COPIES = 24
LAST = TINY.rows - 1

Way = tuple[int, int, list[tuple[int, Row, RouterIn, RouterOut]]]
"""Columns after the first; WRITE.source; (columns on, row, input, output) of the routers passed."""
WAYS: tuple[Way, ...] = (
    (0, 1, [(0, Row.OPERATOR, RouterIn.GLOBAL, RouterOut.GLOBAL)]),
    (
        0, 0,
        [
            (0, Row.OPERATOR, RouterIn.GLOBAL, RouterOut.SOUTH),
            (0, Row.MAPPER, RouterIn.NORTH, RouterOut.SOUTH),
            (0, Row.FIFO, RouterIn.NORTH, RouterOut.LOCAL1),
            (0, Row.FIFO, RouterIn.LOCAL1, RouterOut.GLOBAL),
        ],
    ),
    (
        1, 1,
        [
            (0, Row.OPERATOR, RouterIn.GLOBAL, RouterOut.EAST),
            (1, Row.OPERATOR, RouterIn.WEST, RouterOut.GLOBAL),
        ],
    ),
)  # fmt: skip


def walk(base: int, run: int, *levels: tuple[int, int]) -> dict[str, int]:
    """Return a descriptor; ``levels``: (count, step), innermost first."""
    values = {"base": base, "run": run}
    for level in range(3):
        count, step = levels[level] if level < len(levels) else (1, 0)
        values |= {f"count{level}": count, f"step{level}": step}
    return values


def random_read(rng: random.Random) -> dict[str, int]:
    """Return a descriptor of 1 to 120 words in the input; steps of both signs, overlaps."""
    while True:
        levels = [(rng.choice([1, 1, 2, 3, 6]), rng.randint(-60, 60)) for _ in range(3)]
        # Often near a 4 KB boundary, where bursts are cut.
        base = rng.choice([rng.randrange(PAGE_WORDS), PAGE_WORDS - rng.randrange(40)])
        values = walk(base, rng.choice([1, 2, 3, 5, rng.randint(1, 40)]), *levels)
        words = dma_model.word_addresses(values)
        if len(words) <= 120 and words.min() >= 0 and words.max() < PAGE_WORDS * 3 // 2:
            return values


def random_write(rng: random.Random, base: int, words: int) -> dict[str, int]:
    """Return a descriptor of ``words`` words that touches each of them once, with gaps."""
    run = rng.choice([n for n in range(1, words + 1) if words % n == 0])
    count = words // run
    step = run + rng.randrange(3)
    offset = rng.randrange(4)
    if rng.random() < 0.3:
        return walk(base + offset + (count - 1) * step, run, (count, -step))
    return walk(base + offset, run, (count, step))


def copy(column: int, way: Way, source: dict[str, int], target: dict[str, int]) -> list[int]:
    """Return the instructions of one copy."""
    columns_on, write_source, hops = way
    words = []
    for on, row, entry, leave in hops:
        route = ROUTE.pack(output=leave, input=entry, peers=1 << leave)
        words += config(Kind.ROUTER, route, 1 << column + on, sub=row)
    read = READ.pack(**source, dest=Operand.OPERATOR)
    words += config(Kind.READ_OPERAND, read, 1 << column, relocate=Relocate.INPUT)
    write = WRITE.pack(**target, source=write_source)
    return words + config(Kind.WRITE, write, 1 << column + columns_on, relocate=Relocate.OUTPUT)


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(pause=[0.0, 0.3])
async def random_copies(dut: Any, pause: float) -> None:
    rng = random.Random(cocotb.RANDOM_SEED)
    machine = Machine(dut, pause)
    program, copies = [], []
    for k in range(COPIES):
        way = WAYS[k % len(WAYS)]
        column = rng.randrange(TINY.columns - way[0])
        source = random_read(rng)
        count = len(dma_model.word_addresses(source))
        target = random_write(rng, k * TARGET_WORDS, count)
        copies.append((source, target))
        program += copy(column, way, source, target)
        if k % 4 == 3:
            program += instruction(Opcode.FENCE, columns=(1 << TINY.columns) - 1)
    step_in, step_out = PAGE_WORDS, 5 * PAGE_WORDS
    program += end(step_in, step_out)
    machine.load(PROGRAM, program)
    machine.store(INPUT, [rng.randrange(1 << 16) for _ in range(4 * PAGE_WORDS)])
    wanted = machine.words()
    for frame in range(FRAMES):
        first, last = (
            base // 2 + frame % RING * step for base, step in ((INPUT, step_in), (OUTPUT, step_out))
        )
        for source, target in copies:
            taken = wanted[first + dma_model.word_addresses(source)]
            wanted[last + dma_model.word_addresses(target)] = taken

    found = await machine.run(PROGRAM, INPUT, OUTPUT, FRAMES, RING)
    assert found["STATUS"] == DONE
    assert (machine.words() == wanted).all()
    reads, writes = (
        FRAMES * sum(beats for pair in copies for _, beats in dma_model.bursts(pair[k], TINY))
        for k in (0, 1)
    )
    assert found["FRAMES_DONE"] == FRAMES
    assert found["WRITE_BEATS"] == writes
    assert found["READ_BEATS"] >= reads + FRAMES * len(program) * 2 // TINY.bus_words
    fixed = ("ID", "GRID_HASH", "PARAMETERS")
    parameters = TINY.columns | TINY.maps << 8 | TINY.pixels << 16 | TINY.bus_words << 24
    assert [found[n] for n in fixed] == [IDENTITY, int(TINY.hash()[:8], 16), parameters]


async def status_of(machine: Machine, program: list[int]) -> int:
    """Run a program; return STATUS."""
    machine.load(PROGRAM, program)
    return (await machine.run(PROGRAM, INPUT, OUTPUT, watchdog=500))["STATUS"]


FLAT = copy(0, WAYS[0], walk(0, 40), walk(0, 40)) + end()


@cocotb.test(timeout_time=500, timeout_unit="us")
@cocotb.parametrize(word=[0, 0xF, 0xFFFF_FFFF])
async def illegal_instruction(dut: Any, word: int) -> None:
    status = await status_of(Machine(dut, 0.2), [word, *FLAT])
    assert status == DONE | Error.ILLEGAL_INSTRUCTION << 8


@cocotb.test(timeout_time=500, timeout_unit="us")
async def read_error(dut: Any) -> None:
    machine = Machine(dut, 0.2, fail_reads={INPUT + 32})
    assert await status_of(machine, FLAT) == DONE | Error.READ_RESPONSE << 8


@cocotb.test(timeout_time=500, timeout_unit="us")
async def write_error(dut: Any) -> None:
    machine = Machine(dut, 0.2, fail_writes={OUTPUT + 32})
    assert await status_of(machine, FLAT) == DONE | Error.WRITE_RESPONSE << 8


@cocotb.test(timeout_time=500, timeout_unit="us")
async def program_beyond_an_error(dut: Any) -> None:
    machine = Machine(dut, fail_reads={PROGRAM})
    assert await status_of(machine, FLAT) == DONE | Error.READ_RESPONSE << 8


@cocotb.test(timeout_time=500, timeout_unit="us")
async def hang(dut: Any) -> None:
    write = WRITE.pack(**walk(0, 4), source=0)
    program = config(Kind.WRITE, write, 1, relocate=Relocate.OUTPUT) + end()
    assert await status_of(Machine(dut, 0.2), program) == DONE | Error.HANG << 8


@cocotb.test(timeout_time=500, timeout_unit="us")
async def works_after_a_reset(dut: Any) -> None:
    machine = Machine(dut)
    words = np.arange(40) - 20
    machine.store(INPUT, words)
    assert await status_of(machine, [0]) == DONE | Error.ILLEGAL_INSTRUCTION << 8
    assert await status_of(machine, FLAT) == DONE
    assert machine.words()[OUTPUT // 2 :][:40].tolist() == words.tolist()
