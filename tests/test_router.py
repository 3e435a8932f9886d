# amaranth: UnusedElaboratable=no
"""Router: packets arrive whole, in order, at every peer; nothing is stolen."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest

from neuflow.blocks.router import Router
from neuflow.layout import Kind, RouterIn, RouterOut
from tests.helpers import PACES, Clock, Config, Pace, configure, get, put, simulate, watch

LANES = 2
INPUTS = (RouterIn.NORTH, RouterIn.EAST, RouterIn.LOCAL0)
OUTPUTS = (RouterOut.SOUTH, RouterOut.WEST, RouterOut.GLOBAL, RouterOut.LOCAL1)


def routes(source: RouterIn, targets: tuple[RouterOut, ...]) -> list[Config]:
    """Return the ROUTE words of one packet."""
    peers = sum(1 << o for o in targets)
    return [
        Config(Kind.ROUTER, {"output": o, "input": source, "peers": peers}, sub=3) for o in targets
    ]


def run(plan, depth: int, pauses=(0.0, 0.0), seed: int = 0, gather=None):
    """Send the packets of ``plan`` (source, targets, words); return packets by output."""
    print(f"seed {seed}")
    dut = Router(INPUTS, OUTPUTS, LANES, depth)
    source, sink = pauses
    clock = gather or Clock()
    found = {o: [] for o in OUTPUTS}
    wanted = {o: [words for _, targets, words in plan if o in targets] for o in OUTPUTS}

    async def address(ctx) -> None:
        ctx.set(dut.sub, 3)
        ctx.set(dut.columns, 4)

    configs = [config for s, targets, _ in plan for config in routes(s, targets)]
    for config in configs:
        config.columns = 6
    # Words for another tile and for another column pass by.
    noise = Config(Kind.ROUTER, {"output": 2, "input": 0, "peers": 4}, sub=2, columns=6)
    other = Config(Kind.ROUTER, {"output": 2, "input": 0, "peers": 4}, sub=3, columns=3)
    benches = [address]
    benches.append(
        functools.partial(
            configure, bus=dut.bus, packets=[noise, other, *configs], pace=Pace(source, seed)
        )
    )
    for index, i in enumerate(INPUTS):
        packets = [words for s, _, words in plan if s == i]
        pace = Pace(source, seed + 1 + index)
        benches.append(functools.partial(put, stream=dut.input(i), packets=packets, pace=pace))
    moments = []
    for index, o in enumerate(OUTPUTS):
        benches.append(
            functools.partial(
                get, stream=dut.output(o), count=len(wanted[o]), into=found[o],
                pace=Pace(sink, seed + 10 + index), moments=moments, clock=clock,
            )
        )  # fmt: skip
    background = [functools.partial(watch, stream=dut.output(o)) for o in OUTPUTS]
    simulate(dut, *benches, background=[clock.run, *background])
    assert found == wanted
    return moments


def random_plan(seed: int, packets: int):
    """Return packets from random inputs to random sets of outputs."""
    rng = random.Random(seed)
    plan = []
    for _ in range(packets):
        targets = tuple(sorted(rng.sample(OUTPUTS, rng.randrange(1, 4))))
        words = [rng.randrange(-32768, 32768) for _ in range(rng.randrange(1, 8))]
        plan.append((rng.choice(INPUTS), targets, words))
    return plan


@pytest.mark.parametrize("depth", [1, 2])
def test_one_word_passes(depth: int) -> None:
    run([(RouterIn.NORTH, (RouterOut.SOUTH,), [-32768])], depth)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pauses", PACES)
def test_random_packets_arrive_whole_and_in_order(depth: int, pauses: tuple[float, float]) -> None:
    for seed in range(3):
        run(random_plan(seed, 25), depth, pauses, seed)


@pytest.mark.parametrize("depth", [1, 2])
def test_an_output_configured_early_steals_nothing_from_the_packet_before(depth: int) -> None:
    first = (RouterIn.EAST, (RouterOut.SOUTH,), list(range(20)))
    second = (RouterIn.EAST, (RouterOut.WEST, RouterOut.SOUTH), [91, 92, 93])
    third = (RouterIn.EAST, (RouterOut.GLOBAL,), [94])
    run([first, second, third], depth)


def test_a_beat_passes_every_cycle_and_packets_follow_after_a_gap() -> None:
    plan = [(RouterIn.NORTH, (RouterOut.SOUTH,), list(range(12))) for _ in range(3)]
    moments = run(plan, 2)
    packet = [1] * 5
    between = [1 + Router.GAP]
    assert np.diff(moments).tolist() == packet + between + packet + between + packet
