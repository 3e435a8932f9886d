# amaranth: UnusedElaboratable=no
"""The printed Verilog computes what Amaranth's simulator computes, and reads well."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from neuflow import tidy, verilog
from neuflow.errors import ToolError
from neuflow.expressions import Expressions
from neuflow.netlist import Chunk, from_bits, parse, simplify, to_bits
from neuflow.run import build, compilers

CYCLES = 60
PORTS = {"a": 5, "b": 9, "c": 1, "d": 16}


class Soup(Component):
    """Random expressions of mixed widths and signs, some of them behind registers and enables."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        super().__init__({name: In(width) for name, width in PORTS.items()} | {"q": Out(64)})

    def elaborate(self, platform):
        dice = random.Random(self.seed)
        m = Module()
        values: list[Value] = [self.a, self.b, self.c, self.d, self.b.as_signed(), self.d.as_signed()]
        for number in range(40):
            made = self.mixed(dice, *dice.choices(values[-12:] + values[:6], k=3))
            if dice.random() < 0.5:
                made = made[: dice.randint(1, 24)]
            name = Signal(made.shape(), name=f"step{number}", reset_less=dice.random() < 0.5)
            where = dice.choice(("wire", "wire", "nothing", "register", "enabled"))
            if where == "nothing":
                values.append(made)
                continue
            if where == "wire":
                m.d.comb += name.eq(made)
            elif where == "register":
                m.d.sync += name.eq(made)
            else:
                with m.If(dice.choice(values).any()):
                    m.d.sync += name.eq(made)
                    with m.If(self.c):
                        m.d.sync += name.eq(dice.choice((5, made[:1] ^ 1)))
            values.append(name)
        total: Value = Cat(*values[-20:])
        m.d.comb += self.q.eq(sum(total[i : i + 50] for i in range(0, len(total), 50)))
        return m

    @staticmethod
    def mixed(dice: random.Random, a: Value, b: Value, c: Value) -> Value:
        """Return a small expression of three values."""
        a, b = a[:20] if len(a) > 20 and dice.random() < 0.7 else a, b[:30]
        if dice.random() < 0.3:
            a, b = a.as_signed(), b.as_signed()
        kinds = (
            lambda: a + b, lambda: a - b, lambda: (a + b) + c[:8], lambda: (a - b) >> c[:3],
            lambda: ((a + b) >> 1) < c, lambda: a * b[:7], lambda: a & ~b, lambda: ~(a | b) ^ c[:12],
            lambda: Mux(c.any(), a + 1, b - 1), lambda: Mux(a == b, a, ~a), lambda: -a,
            lambda: Cat(a + b, c[:4])[1:], lambda: (a < b) + (c[:4] + 1 == 16), lambda: a.any() & ~c[:1],
            lambda: (a[:12] << c[:3]) + b, lambda: a.as_signed() >> c[:3], lambda: ~b[:1] + a,
            lambda: Mux(c[:1], a, 0) | Mux(c[1:2], b, 0), lambda: (a - b)[:9] >= c[:9],
            lambda: a[:5] + b[:5] > c[:5], lambda: (a[:5] + b[:5] >> c[:2]) + 1,
        )  # fmt: skip
        return Value.cast(dice.choice(kinds)())


def stimuli() -> list[dict[str, int]]:
    """Return random values for all inputs, one set a cycle."""
    dice = random.Random(1000)
    return [
        {n: dice.choice((0, (1 << w) - 1, dice.getrandbits(w))) for n, w in PORTS.items()}
        for _ in range(CYCLES)
    ]


def amaranth_says(seed: int) -> list[int]:
    """Return the outputs in Amaranth's simulator, cycle by cycle."""
    soup, seen = Soup(seed), []

    async def bench(ctx):
        for values in stimuli():
            for name, value in values.items():
                ctx.set(getattr(soup, name), value)
            await ctx.delay(1e-7)
            seen.append(ctx.get(soup.q))
            await ctx.tick()

    simulator = Simulator(soup)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def verilator_says(seeds: range, place: Path) -> list[list[int]]:
    """Return the outputs of the exported Verilog of every seed, cycle by cycle."""
    bench = ["module bench;", "  reg clk = 0;"]
    bench += [f"  reg [{width - 1}:0] {name};" for name, width in PORTS.items()]
    ports = ", ".join(f".{name}({name})" for name in PORTS)
    for seed in seeds:
        (text,) = verilog.export(Soup(seed), f"soup{seed}").values()
        (place / f"soup{seed}.v").write_text(text, encoding="utf-8")
        bench.append(f"  wire [63:0] q{seed};")
        bench.append(f"  soup{seed} dut{seed} (.clk(clk), .rst(1'b0), .q(q{seed}), {ports});")
    shown = "".join(f", q{seed}" for seed in seeds)
    bench.append("  initial begin")
    for values in stimuli():
        bench.append("    " + " ".join(f"{name} = {value};" for name, value in values.items()))
        bench.append(f'    #1 $display("{"%0d " * len(seeds)}"{shown}); clk = 1; #1 clk = 0; #1;')
    bench += ["    $finish;", "  end", "endmodule", ""]
    (place / "bench.v").write_text("\n".join(bench), encoding="utf-8")
    lines = run_verilator(place, [f"soup{seed}.v" for seed in seeds]).splitlines()
    rows = [[int(word) for word in line.split()] for line in lines if re.match(r"\d+ ", line)]
    return [list(column) for column in zip(*rows, strict=True)]


def run_verilator(place: Path, sources: list[str]) -> str:
    """Build and run ``bench.v``; return what it prints."""
    root = build.verilator_root()
    run = {"cwd": place, "check": True, "capture_output": True, "text": True}
    command = [
        str(root / "bin" / "verilator_bin"), "--cc", "--exe", "--main", "--timing", "-O0",
        "-Wno-fatal", "-Wno-lint", "--Mdir", "obj", "-o", "bench", "bench.v", *sources,
    ]  # fmt: skip
    subprocess.run(command, env={**os.environ, "VERILATOR_ROOT": str(root)}, **run)
    found = compilers.tools()
    compiler = found["C++ compiler"]
    cxx = [f"CXX={compiler}", f"LINK={compiler}"]
    fast = ["OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0"]
    coroutines = ["CFG_CXXFLAGS_COROUTINES=-fcoroutines", f"PYTHON3={sys.executable}"]
    make = [found["make"], "-C", "obj", "-f", "Vbench.mk", *cxx, *fast, *coroutines]
    subprocess.run([*make, *compilers.make_variables(compilers.compiler_version(compiler))], **run)
    return subprocess.run([str(place / "obj" / "bench")], **run).stdout


def need_compiler() -> None:
    """Skip where Verilator cannot build."""
    try:
        compilers.tools()
    except ToolError as error:
        pytest.skip(str(error))


SEEDS = range(16)


@pytest.mark.rtl
def test_random_logic_is_the_same_in_amaranth_and_in_verilog(tmp_path):
    need_compiler()
    for seed, seen in zip(SEEDS, verilator_says(SEEDS, tmp_path), strict=True):
        assert seen == amaranth_says(seed), f"seed {seed}"


def not_exact(self, sig, context):
    """Let an operand of a comparison be as wide as it likes: carries get lost."""
    return self.signal(sig, context)


def always_fits(self, name, width, context, alone):
    """Write every cell where it is used, whatever its width is there."""
    return self.cell(self.driver[name])


@pytest.mark.rtl
@pytest.mark.parametrize(("method", "broken"), [("_exact", not_exact), ("_fold", always_fits)])
def test_a_broken_rule_of_widths_shows(method, broken, tmp_path, monkeypatch):
    need_compiler()
    monkeypatch.setattr(Expressions, method, broken)
    assert verilator_says(SEEDS, tmp_path) != [amaranth_says(seed) for seed in SEEDS]


class Gate(Component):
    """Two registers under one enable, one of them through two shared sums."""

    def __init__(self) -> None:
        super().__init__({"go": In(1), "a": In(8), "y": Out(8), "reg": Out(9), "always": Out(1)})

    def elaborate(self, platform):
        m = Module()
        sum_ = Signal(9, name="sum")
        m.d.comb += sum_.eq(self.a + 1)
        with m.If(self.go):
            m.d.sync += [self.y.eq(sum_ ^ sum_[1:]), getattr(self, "reg").eq(sum_ - 3)]  # noqa: B009
        m.d.sync += self.always.eq(self.go)
        return m


def test_registers_share_a_process_and_what_one_branch_needs_is_in_it():
    text = verilog.export(Gate(), "gate")["gate"]
    assert text.count("always @(posedge clk)") == 1
    branch = text.partition("if (go) begin\n")[2].partition("      end\n")[0]
    assert [line.split()[0] for line in branch.splitlines()] == ["sum", "reg_2", "y"]
    assert "assign sum" not in text
    assert "output reg always_2" in text, "names that are keywords get a number"


RTLIL = """\
module \\one
  wire width 4 input 1 \\a
  wire width 4 output 2 \\q
  attribute \\init 4'0001
  wire width 4 \\held
  wire width 4 \\words[0]
  wire input 3 \\clk
  cell $dff $1
    parameter \\CLK_POLARITY 1
    parameter \\WIDTH 3
    connect \\CLK \\clk
    connect \\D { \\words[0] [0] \\a [3:2] }
    connect \\Q \\held [3:1]
  end
  connect \\words[0] { \\a [1:0] 2'x }
  connect \\held [0] \\a [3]
  connect \\q \\held
end
"""


def test_second_names_go_and_a_register_has_a_wire_of_its_own():
    (module,) = parse(RTLIL)
    simplify(module, {"\\one": module})
    assert "\\words[0]" not in module.wires
    (register,) = module.cells
    assert register.pins["D"] == (Chunk("", 0, 1, "0"), Chunk("\\a", 2, 2))
    text = tidy.print_verilog(RTLIL)["one"]
    assert "assign q = {held_q, a[3]};" in text and "reg [3:1] held_q = 3'h0;" in text
    assert "held_q <= {1'h0, a[3:2]};" in text


def test_signals_and_bits_are_the_same():
    sig = (Chunk("x", 3, 4), Chunk("", 0, 3, "011"), Chunk("y", 0, 1))
    assert from_bits(to_bits(sig)) == sig


def test_bits_that_are_there_more_than_once_are_one_replication():
    sig = tuple(Chunk("m", at, 1) for at in (2, 2, 2, 1, 1, 1, 0, 0, 0))
    assert from_bits(to_bits(sig)) == sig
    assert from_bits([("m", 0), ("m", 1), ("m", 1), ("m", 1)]) == (
        Chunk("m", 1, 1), Chunk("m", 1, 1), Chunk("m", 0, 2),
    )  # fmt: skip


@pytest.mark.parametrize("line", ["  process $1", "  memory width 4 \\m"])
def test_what_the_printer_does_not_know_is_refused(line):
    with pytest.raises(ValueError, match="does not know"):
        parse(f"module \\one\n{line}\nend\n")


def test_long_lines_are_broken_at_blanks():
    line = "    q <= " + " + ".join(f"operand{i}" for i in range(40)) + ";"
    pieces = tidy.wrapped(line).splitlines()
    assert max(map(len, pieces)) <= tidy.COLUMNS
    assert re.sub(r"\s+", " ", " ".join(pieces)).strip() == line.strip()
