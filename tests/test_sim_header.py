"""Headers of the simulator: arithmetic as Verilator's own, memories a cache line apart."""

from __future__ import annotations

import subprocess

import pytest

from neuflow import files
from neuflow.errors import ToolError
from neuflow.run import build, compilers

# A name in brackets is the function that the macro hides.
PROGRAM = r"""
#include <cstdio>
#include <random>
#include "verilated.h"
#include "neuflow_sim.h"

static int wrong = 0;
static void same(const char *what, int bits, QData a, QData b) {
    if (a != b && ++wrong < 9) std::printf("%s, %d bits: %llx, not %llx\n", what, bits,
                                           (unsigned long long)a, (unsigned long long)b);
}
#define UNARY(F, bits, x) same(#F, bits, F(64, bits, x), (F)(64, bits, x))
// Bits above the width are not the runtime's to say.
#define SHIFT(F, by, bits, x, n) same(#F, bits, F(bits, bits, by, x, n) & VL_MASK_Q(bits), \
                                      (F)(bits, bits, by, x, n) & VL_MASK_Q(bits))
#define BINARY(F, bits, x, y) same(#F, bits, F(bits, x, y), (F)(bits, x, y))

int main() {
    std::mt19937_64 dice(20);
    const QData ends[] = {0, 1, ~0ull, ~0ull >> 1, 1ull << 63, 1ull << 31, ~0ull >> 33};
    const auto pick = [&](int bits) -> QData {
        const QData word = dice(), end = ends[dice() % 7];
        const QData x = word & 1 ? dice() : word & 2 ? end : word & 4 ? 1ull << (bits - 1) : ~end;
        return x & (~0ull >> (64 - bits)); // an operand has no bits above its width
    };
    for (int bits = 1; bits <= 64; ++bits)
        for (int i = 0; i < 2000; ++i) {
            const QData x = pick(bits), y = pick(bits);
            UNARY(VL_EXTENDS_QQ, bits, x);
            BINARY(VL_MULS_QQQ, bits, x, y);
            SHIFT(VL_SHIFTRS_QQI, 6, bits, x, IData(y & 63));
            SHIFT(VL_SHIFTRS_QQI, 32, bits, x, IData(y));
            if (bits > 32) continue;
            const IData a = IData(x), b = IData(y);
            UNARY(VL_EXTENDS_II, bits, a);
            UNARY(VL_EXTENDS_QI, bits, a);
            BINARY(VL_MULS_III, bits, a, b);
            SHIFT(VL_SHIFTRS_III, 5, bits, a, b & 31);
            SHIFT(VL_SHIFTRS_III, 32, bits, a, b);
            BINARY(VL_GTS_III, bits, a, b);
            BINARY(VL_GTES_III, bits, a, b);
            BINARY(VL_LTS_III, bits, a, b);
            BINARY(VL_LTES_III, bits, a, b);
            BINARY(VL_GTES_III, bits, a, a);
            BINARY(VL_LTES_III, bits, a, a);
        }
    for (IData shift = 0; shift < 300; ++shift) {
        VlWide<8> in, out, hidden;
        for (int i = 0; i < 8; ++i) in[i] = EData(dice());
        VL_SHIFTR_WWI(256, 256, 9, out, in, shift);
        (VL_SHIFTR_WWI)(256, 256, 9, hidden, in, shift);
        for (int i = 0; i < 8; ++i) same("VL_SHIFTR_WWI", int(shift), out[i], hidden[i]);
        in[7] &= VL_MASK_E(240);
        VL_SHIFTL_WWI(240, 240, 9, out, in, shift);
        (VL_SHIFTL_WWI)(240, 240, 9, hidden, in, shift);
        hidden[7] &= VL_MASK_E(240); // the runtime leaves it to others
        for (int i = 0; i < 8; ++i) same("VL_SHIFTL_WWI", int(shift), out[i], hidden[i]);
    }
    return wrong != 0;
}
"""


# Memories of 4 KB and of 8 KB are special cases; one of 4,094 bytes is not.
MEMORIES = r"""
#include <cstdio>
#include "verilated.h"

struct Tile {
    VlUnpacked<SData, 2048> first, second;
    VlUnpacked<VlWide<4>, 512> wide;
    VlUnpacked<SData, 2047> odd;
};

int main() {
    static Tile tile;
    const auto apart = (&tile.second[0] - &tile.first[0]) * sizeof(SData);
    if (apart != 4096 + 64) std::printf("%zu bytes apart\n", apart);
    if (sizeof tile.wide != 8192 + 64 || sizeof tile.odd != 4094) std::puts("wrong sizes");
    for (int at = 0; at < 2048; ++at) tile.first[at] = at, tile.second[at] = 2 * at;
    const Tile &same = tile;
    for (int at = 0; at < 2048; ++at)
        if (same.first[at] != at || same.second[at] != 2 * at) std::printf("wrong word %d\n", at);
}
"""


def compiled(program: str, place, *flags: str) -> str:
    """Return what a C++ program prints, compiled with Verilator's headers."""
    (place / "program.cpp").write_text(program)
    include = build.verilator_root() / "include"
    command = [compilers.tools()["C++ compiler"], "-std=gnu++20", "-O1", f"-I{place}", f"-I{include}",
               f"-I{include / 'vltstd'}", *flags, "program.cpp", "-o", "program"]  # fmt: skip
    subprocess.run(command, cwd=place, check=True)
    done = subprocess.run([place / "program"], capture_output=True, text=True, check=False)
    assert bool(done.returncode) <= bool(done.stdout)
    return done.stdout


def run(header: str, place) -> str:
    """Return what the comparison prints with such a header: "" where all is the same."""
    (place / "neuflow_sim.h").write_text(header)
    return compiled(PROGRAM, place)


@pytest.fixture(autouse=True)
def _needs_a_compiler():
    try:
        compilers.tools()
    except ToolError as error:
        pytest.skip(str(error))


def test_the_header_changes_no_result(tmp_path):
    assert run(files.read_text("sim/neuflow_sim.h"), tmp_path) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "found"),
    [
        ("static_cast<int32_t>(x << (32 - bits)) >> (32 - bits)", "x", "VL_EXTENDS_II"),
        ("by < 31 ? by : 31", "by", "VL_SHIFTRS_III"),
        ("by < 63 ? by : 63", "by", "VL_SHIFTRS_QQI"),
    ],
)
def test_what_is_broken_is_found(right, wrong, found, tmp_path):
    header = files.read_text("sim/neuflow_sim.h")
    broken = header.replace(right, wrong)
    assert broken != header
    assert found in run(broken, tmp_path)


def test_memories_are_a_cache_line_apart(tmp_path):
    (tmp_path / "neuflow_memory.h").write_text(files.read_text("sim/neuflow_memory.h"))
    flags = ['-DVL_VERILATED_INCLUDE="neuflow_memory.h"']
    assert compiled(MEMORIES, tmp_path, *flags) == ""
    assert "4096 bytes apart" in compiled(MEMORIES, tmp_path)  # as the runtime has them
