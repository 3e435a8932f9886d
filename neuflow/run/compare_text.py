"""What ``neuflow compare`` says, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuflow import layout
from neuflow.ir import Program
from neuflow.run.measure import origin

if TYPE_CHECKING:
    from neuflow.run.compare import Difference
    from neuflow.run.compare_locate import Operands, Spot
    from neuflow.run.compare_times import Times
    from neuflow.run.stats import Measured

TAPS = 8
"""Operands on stdout; the file has all."""

_SUM_WORDS = ("low", "middle", "high")


def agreement(
    program: Program, words: int, written: int, packets: Sequence[object], measured: Measured
) -> str:
    """Say that all agree."""
    return (
        f"words   agree: golden == cycle == rtl in all {words} output words; cycle == rtl in all "
        f"{written} words of {len(packets)} WRITE packets\n"
        f"cycles  agree: cycle == rtl, {measured.cycles} in total, and in each of "
        f"{len(program.layers)} layers"
    )


def disagreement(
    program: Program,
    found: Sequence[Difference],
    extra: Sequence[str],
    times: Times | None,
    waves: Path | None,
    cycle: int | None,
    late: int,
    whole: bool,
) -> str:
    """Say where the judges part.

    ``cycle``: what the waves are around, at time 2 x (cycle + ``late``). ``whole``: all operands.
    """
    lines = ["words   DISAGREE" if found or extra else "words   agree: golden == cycle == rtl"]
    for one in found:
        lines += _difference(program, one, whole)
    lines += [f"  {line}" for line in extra]
    if times is None:
        lines.append("cycles  agree: cycle == rtl")
    else:
        lines.append(f"cycles  DISAGREE: cycle {times.total[0]}, rtl {times.total[1]}")
        lines += _times(program, times)
    if waves is not None and cycle is not None:
        lines.append(f"waves   {waves}: around cycle {cycle}, which is at time {2 * (cycle + late)}")
    return "\n".join(lines)


# --- words ------------------------------------------------------------------------------------------


def _difference(program: Program, one: Difference, whole: bool) -> Iterator[str]:
    written, word = one.written, one.written.config.word
    other = "golden differs from cycle" if one.against == "golden" else "rtl differs from cycle"
    label = origin(program, word)
    yield f"  {other}, first in the program's order:"
    if one.spot is None:
        yield f"    layer {label.split('/pass')[0]}"
        yield (
            "    this compiler lays the program out in another way, so map, row, pixel and operands "
            "are not known; compile it again"
        )
    else:
        yield from _place(one.spot)
    yield (
        f"    packet {label}, program word {word}, frame {written.frame}; its word {one.number} of "
        f"{len(written.words)}, at word {one.address} of memory"
    )
    yield f"    {_values(one)}"
    if one.found_address is not None and one.found_address != one.address:
        yield f"    rtl writes word {one.found_address} of memory instead"
    if one.operands is not None:
        yield from _operands(one.operands, one.against, whole)


def _place(spot: Spot) -> Iterator[str]:
    chain = spot.turn.chain
    nodes = " -> ".join(f"{node.name} ({node.op})" for node in chain.nodes) or "copy"
    yield f"    layer {chain.name}: {nodes}"
    what = f"tensor {chain.output}"
    if spot.sum_word is not None:
        what = f"{_SUM_WORDS[spot.sum_word]} word of the partial sum, pass {spot.turn.number}"
        what += "" if spot.exists else " (a lane or map that no output has)"
    yield f"    image {spot.image}, map {spot.map}, row {spot.row}, pixel {spot.pixel} of {what}"


def _values(one: Difference) -> str:
    golden = "has no such word" if one.golden is None else str(one.golden)
    rtl = "never written" if one.found is None else str(one.found)
    when = "" if one.cycle is None else f" (written in cycle {one.cycle})"
    return f"golden {golden}, cycle {one.expected}, rtl {rtl}{when}"


def _operands(operands: Operands, against: str, whole: bool) -> Iterator[str]:
    for number, one in enumerate(operands.sums if whole else operands.sums[: TAPS + 1]):
        mark = " <" if number == operands.chosen and len(operands.sums) > 1 else ""
        differ = "" if one.golden == one.device else "  DIFFERS"
        yield (
            f"    accumulator with bias, row {one.row}, pixel {one.pixel}: expected {one.golden}, "
            f"from the device section's words {one.device}{differ}{mark}"
        )
    if against == "rtl" and operands.sums:
        yield "    rtl's own accumulator shows in the waves"
    taps = sorted(operands.taps, key=lambda tap: not tap.differs)
    shown = taps if whole else taps[:TAPS]
    if taps:
        yield f"    operands: {len(taps)}, {sum(tap.differs for tap in taps)} of them differ"
    for tap in shown:
        weight = "" if tap.weight is None else f" x weight {tap.weight}"
        there = "" if not tap.differs else (
            f"  DIFFERS: in memory {tap.found_word}"
            + ("" if tap.found_weight is None else f" x {tap.found_weight}")
        )  # fmt: skip
        yield (
            f"      {tap.tensor} channel {tap.channel} row {tap.row} pixel {tap.pixel}: "
            f"{tap.word}{weight}{there}"
        )
    if len(shown) < len(taps):
        yield f"      and {len(taps) - len(shown)} more, in the file"


# --- cycles -----------------------------------------------------------------------------------------


def _times(program: Program, times: Times) -> Iterator[str]:
    if times.layers:
        name, cycle, rtl = times.layers[0]
        yield (
            f"  first layer that differs: {name}, cycle {cycle}, rtl {rtl} "
            f"({len(times.layers)} of {len(program.layers)} differ)"
        )
    packet = times.packet
    if packet is not None:
        yield (
            f"  first WRITE packet done at another time: {origin(program, packet.word)}, program word "
            f"{packet.word}, frame {packet.frame}, column {packet.column}: cycle {_time(packet.cycle)}, "
            f"rtl {_time(packet.rtl)}"
        )
    activity = times.activity
    if activity is not None:
        yield (
            f"  first activity that differs: cycle {activity.at}, column {activity.column}: cycle "
            f"{_activity(activity.cycle)}, rtl {_activity(activity.rtl)}"
        )


def _time(cycle: int | None) -> str:
    return "never" if cycle is None else f"in {cycle}"


def _activity(bits: int | None) -> str:
    if bits is None:
        return "has ended"
    fields, causes = layout.ACTIVITY.unpack([bits]), {c.value: c.name for c in layout.Cause}
    names = [a.name for a in layout.Activity if fields["flags"] >> a & 1]
    macs = f", {fields['lanes']} lanes x {fields['maps']} maps" if "MAC" in names else ""
    return f"{'+'.join(names) or 'nothing'} ({causes.get(fields['cause'], '?')}{macs})"


__all__ = ["agreement", "disagreement"]
