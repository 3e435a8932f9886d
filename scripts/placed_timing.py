"""The worst paths of a placement or a routed design, from the delays that nextpnr writes as SDF.

nextpnr prints paths only after routing, and then the worst one. Here every pair of registers'
names counts once, so that one look shows what else must become shorter.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path

from cell_names import split_name

Pin = tuple[str, str]
"""Cell and port."""

_WIRE = re.compile(r"\(INTERCONNECT (\S+)/(\S+) (\S+)/(\S+) \(\d+:\d+:(\d+)\)")
_THROUGH = re.compile(r"\(IOPATH (\S+) (\S+) \(-?\d+:-?\d+:(-?\d+)\)")
_SETUP = re.compile(r"\(SETUPHOLD \(posedge (\S+)\) \(posedge \S+\) \(-?\d+:-?\d+:(-?\d+)\)")

CLOCKS = {"CLK", "CLK0", "CLKA", "CLKB", "WCK"}


@dataclass
class Delays:
    """All times in ps. ``after``: pin -> what it leads to, and the delay; ``starts``: from the
    clock to a register's output; ``ends``: set-up of a register's input."""

    after: dict[Pin, list[tuple[Pin, int]]]
    starts: dict[Pin, int]
    ends: dict[Pin, int]


def read(sdf: Path) -> Delays:
    """Read what nextpnr wrote."""
    found = Delays(defaultdict(list), {}, {})
    cell = ""
    with sdf.open(encoding="utf-8") as lines:
        for line in lines:
            line = line.strip().replace("\\", "")
            if line.startswith("(INSTANCE"):
                cell = line[len("(INSTANCE") : -1].strip()
            elif wire := _WIRE.match(line):
                driver, output, load, port, delay = wire.groups()
                found.after[driver, output].append(((load, port), int(delay)))
            elif through := _THROUGH.match(line):
                port, output, delay = through.groups()
                if port in CLOCKS:
                    found.starts[cell, output] = int(delay)
                else:
                    found.after[cell, port].append(((cell, output), int(delay)))
            elif setup := _SETUP.match(line):
                found.ends[cell, setup[1]] = max(0, int(setup[2]))
    return found


def arrivals(delays: Delays) -> tuple[dict[Pin, int], dict[Pin, Pin]]:
    """Return when a pin's value is there at the latest, and the pin that it waits for."""
    reached: set[Pin] = set()
    waiting = list(delays.starts)
    inputs: Counter[Pin] = Counter()
    while waiting:
        pin = waiting.pop()
        if pin in reached:
            continue
        reached.add(pin)
        for after, _ in delays.after.get(pin, ()):
            inputs[after] += 1
            waiting.append(after)
    times = dict(delays.starts)
    before: dict[Pin, Pin] = {}
    ready = deque(pin for pin in delays.starts if not inputs[pin])
    while ready:
        pin = ready.popleft()
        for after, delay in delays.after.get(pin, ()):
            if times[pin] + delay > times.get(after, -1):
                times[after], before[after] = times[pin] + delay, pin
            inputs[after] -= 1
            if not inputs[after]:
                ready.append(after)
    return times, before


def _name(pin: Pin) -> str:
    block, signal = split_name(pin[0])
    return f"{block}: {re.sub(r'[0-9]+$', '', signal)}"


def worst(sdf: Path) -> list[tuple[float, int, list[str]]]:
    """Return (ns, registers, names passed) for each pair of names, the longest path first."""
    delays = read(sdf)
    times, before = arrivals(delays)
    found = [(times[pin] + setup, pin) for pin, setup in delays.ends.items() if pin in times]
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    paths: dict[tuple[str, str], tuple[float, list[str]]] = {}
    number: Counter[tuple[str, str]] = Counter()
    for time, pin in found:
        way = [pin]
        while way[-1] in before:
            way.append(before[way[-1]])
        pair = (_name(way[-1]), _name(pin))
        number[pair] += 1
        paths.setdefault(pair, (time / 1000, [_name(p) for p in reversed(way)]))
    return [(time, number[pair], _short(names)) for pair, (time, names) in paths.items()]


def _short(names: list[str]) -> list[str]:
    """Leave out repeated names."""
    return [name for k, name in enumerate(names) if not k or name != names[k - 1]]


def table(sdf: Path, rows: int = 30) -> str:
    """Return the worst paths as Markdown, with the clock they allow."""
    paths = worst(sdf)
    if not paths:
        return "no path between registers\n"
    lines = [
        f"Worst paths: {1000 / paths[0][0]:.1f} MHz",
        "",
        "| ns | registers | through |",
        "|---|---|---|",
    ]
    lines += [
        f"| {time:.2f} | {number} | {' > '.join(way)} |" for time, number, way in paths[:rows]
    ]
    return "\n".join(lines) + "\n"
