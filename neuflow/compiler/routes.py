"""Routes of a column: the way of a chain's stream through its tiles."""

from __future__ import annotations

from collections.abc import Callable

from neuflow.compiler.cut import needs_helper
from neuflow.compiler.mapping import Chain, Step
from neuflow.grid import GridConfig
from neuflow.layout import RouterIn, RouterOut, Row

Record = tuple[tuple[str, int], ...]
"""Fields of a configuration record, by name."""


def route(output: RouterOut, source: RouterIn, peers: int = 0) -> Record:
    """Fields of one ROUTE word; without ``peers`` the output is alone."""
    fields = {"output": int(output), "input": int(source), "peers": peers or 1 << output}
    return tuple(sorted(fields.items()))


def walk_routes(
    chain: Chain, steps: tuple[Step, ...], grid: GridConfig
) -> tuple[dict[int, tuple[Record, ...]], int]:
    """Return the ROUTE records of each row of a column, and WRITE.source.

    The stream enters the operator tile from the convolver or from the operand line, crosses to the
    mapper tile and back at most once, and leaves by the tile it is at, from a mapper by the last.
    """
    routes: dict[int, list] = {}

    def add(row: int, output: RouterOut, source: RouterIn, peers: int = 0) -> None:
        routes.setdefault(int(row), []).append(route(output, source, peers))

    row, at = Row.OPERATOR, RouterIn.GLOBAL
    if chain.head is not None:
        add(Row.CONVOLVER, RouterOut.SOUTH, RouterIn.LOCAL0)
        at = RouterIn.NORTH
    alus = 0
    for step in steps:
        wanted = Row.MAPPER if step.node.op == "map" else Row.OPERATOR
        if row != wanted:
            down = wanted == Row.MAPPER
            add(row, RouterOut.SOUTH if down else RouterOut.NORTH, at)
            row, at = wanted, RouterIn.NORTH if down else RouterIn.SOUTH
        if step.node.op == "map":
            add(row, RouterOut.LOCAL0, at)
            at = RouterIn.LOCAL0
        elif step.node.op == "pool":
            add(row, RouterOut.LOCAL4, at)
            at = RouterIn.LOCAL2
        else:
            _alu_routes(add, chain, step, at, alus)
            at = RouterIn(RouterIn.LOCAL0 + alus)
            alus += 1
    if row == Row.OPERATOR:
        add(row, RouterOut.GLOBAL, at)
        return {r: tuple(records) for r, records in routes.items()}, 1
    for passed in range(Row.MAPPER, grid.rows - 1):
        add(passed, RouterOut.SOUTH, at)
        at = RouterIn.NORTH
    add(grid.rows - 1, RouterOut.GLOBAL, at)
    return {r: tuple(records) for r, records in routes.items()}, 0


def _alu_routes(add: Callable, chain: Chain, step: Step, at: RouterIn, number: int) -> None:
    """Route the stream, and the operand if there is one, to the inputs of ALU ``number``."""
    ports = {
        "a": RouterOut(RouterOut.LOCAL0 + 2 * number),
        "b": RouterOut(RouterOut.LOCAL1 + 2 * number),
    }
    peers = sum(1 << ports[side] for side in step.sides)
    for side in step.sides:
        add(Row.OPERATOR, ports[side], at, peers)
    if step.operand is not None:
        other = ports["b" if step.sides == "a" else "a"]
        add(Row.OPERATOR, other, RouterIn.EAST if needs_helper(chain) else RouterIn.GLOBAL)
