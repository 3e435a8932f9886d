"""``docs/numbers.md``: every row of its tables is read from the page and worked out."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest

from neuflow.blocks.alu_model import alu
from neuflow.blocks.mapper_model import apply_table
from neuflow.compiler.mapper_tables import build
from neuflow.compiler.quantise import multiplier
from neuflow.fixed import FixedPoint, requantise
from neuflow.layout import AluOp
from tests.test_golden import leave

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "numbers.md").read_text(encoding="utf-8")


def tables(heading: str) -> list[list[list[str]]]:
    """Return the tables of a section, each as rows of cells, its head first."""
    section = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", section, re.MULTILINE)
    cut = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
           for block in blocks]  # fmt: skip
    return [[rows[0], *rows[2:]] for rows in cut]


def number(text: str) -> int:
    """Return an integer such as ``-2**47 + 1`` or ``**127**``; 0 for - or nothing."""
    text = text.strip("*")
    if text in ("", "-"):
        return 0
    tree = ast.parse(text, mode="eval")
    known = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)
    assert all(isinstance(node, known) for node in ast.walk(tree)), text
    return int(eval(compile(tree, "page", "eval")))


def numbers(text: str) -> list[int]:
    return [number(part.strip()) for part in text.split(",")]


def test_words_of_real_values() -> None:
    (((_, *reals), (_, *words)),) = tables("Words")
    values = [eval(real, {"__builtins__": {}}) for real in reals]
    assert FixedPoint(8, 7).quantise(values).tolist() == [number(word) for word in words]


def test_leaving_the_accumulator() -> None:
    ((_, *rows),) = tables("Leaving the accumulator")
    assert len(rows) >= 6
    for row in rows:
        total, m, s, zero, bits, want = (number(cell) for cell in row[:6])
        assert requantise(total, 0, m, s, zero, bits) == want == leave(total, m, s, zero, bits), row


def test_terms() -> None:
    ((_, *rows),) = tables("Terms")
    assert len(rows) >= 14
    for op, a, b, shifts, want, _ in rows:
        shift_a, shift_b, shift = numbers(shifts)
        got = alu(AluOp[op], [number(a)], [number(b)], shift_a=shift_a, shift_b=shift_b, shift=shift)
        assert got.tolist() == [number(want)], (op, a, b)


def test_pooling() -> None:
    ((_, *rows),) = tables("Pooling")
    assert len(rows) >= 4 and multiplier(1 / 9) == (29127, 18)
    for _, sums, scale, out, _ in rows:
        m, s = numbers(scale)
        assert requantise(numbers(sums), 0, m, s, 0, 16).tolist() == numbers(out)


def test_mapper_rows() -> None:
    (_, *rows), _ = tables("Mapper")
    head = ""
    for name, x, out, _ in rows:
        head = name or head
        found = re.fullmatch(r"(\w+)(?:\((-?\d+), (-?\d+)\))?, points (\d+) -> (\d+)", head)
        assert found, head
        function, low, high, *points = found.groups()
        bounds = (float(low), float(high)) if low else (None, None)
        table = build(function.lower(), int(points[0]), int(points[1]), 16, *bounds)
        assert apply_table(table, numbers(x)).tolist() == numbers(out), (head, x)


def test_worst_errors() -> None:
    """Each is what the table says of itself, rounded as the page shows it."""
    _, (_, *rows) = tables("Mapper")
    assert len(rows) >= 6
    for function, points, bits, words, value in rows:
        before, after = (int(n) for n in re.findall(r"(\d+) -> (\d+)", points)[0])
        name, _, given = function.strip(")").partition(" (")
        values = [float(value) for value in given.split(", ") if value]
        known = dict(zip(("alpha", "beta")[: len(values)], values, strict=True))
        worst = build(name, before, after, int(bits), **known).worst
        digits = len(words.partition(".")[2])
        assert round(worst, digits) == float(words), (function, points, worst)
        assert float(f"{worst * 2.0**-after:.1e}") == float(value), (function, points, worst)


@pytest.mark.parametrize(
    ("exponent", "low", "points", "figure", "shown"),
    [
        (-0.75, 1.0, (14, 14), 1.3, "{} words at points 14 -> 14"),
        (-0.75, 1.0, (10, 14), 12.3, "{} at 10 -> 14"),
        (0.5, 0.0, (12, 13), 202, "{} words near 0 at 12 -> 13"),
        (0.5, 0.01, (12, 13), 14.5, "from 0.01 on {}"),
    ],
)
def test_worst_errors_of_powers(
    exponent: float, low: float, points: tuple[int, int], figure: float, shown: str
) -> None:
    """The sentence behind the tables; its figures are rounded up."""
    assert shown.format(figure) in PAGE
    scale = 1 if isinstance(figure, int) else 10
    worst = build("power", *points, 16, low, np.inf, exponent).worst
    assert math.ceil(worst * scale) == round(figure * scale)
