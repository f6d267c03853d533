# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emptcp.pybpf import BpfError, MissingFeature, declarations, kinds, library
from emptcp.pybpf.libbpf import collect, declared_functions


def python(code: str, **environment: str) -> str:
    """Run code in a new interpreter, as libbpf is opened once per process; return what it printed."""
    env = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FIND = """
from emptcp import pybpf
try:
    print(pybpf.library().path)
except pybpf.BpfError as problem:
    print(problem)
"""


def test_importing_it_opens_nothing() -> None:
    loaded = python(
        "import sys, emptcp.pybpf; print(sorted({'_cffi_backend', 'elftools'} & set(sys.modules)))"
    )
    assert loaded == "[]"


def test_opening_it_parses_no_c() -> None:
    code = "import sys, emptcp.pybpf; emptcp.pybpf.library(); print({'cffi', 'pycparser'} & set(sys.modules))"
    assert python(code) == "set()"


def test_what_is_opened_is_what_is_declared(tmp_path: Path) -> None:
    declarations.generate(tmp_path / "declared.py")
    written = Path(str(declarations.__file__)).with_name("declared.py")
    fix = "run: python -m emptcp.pybpf.declarations"
    assert (tmp_path / "declared.py").read_bytes() == written.read_bytes(), fix


def test_the_library_tells_path_version_and_what_it_lacks() -> None:
    found = library()
    assert Path(found.path).is_file()
    assert found.version >= (1, 0)
    assert set(found.missing) <= set(declared_functions())


def test_the_path_in_the_environment_comes_first() -> None:
    assert python(FIND, EMPTCP_LIBBPF=library().path) == library().path


def test_a_wrong_path_in_the_environment_is_named_and_nothing_else_is_tried(tmp_path: Path) -> None:
    said = python(FIND, EMPTCP_LIBBPF=str(tmp_path / "no.so"))
    assert f"EMPTCP_LIBBPF={tmp_path / 'no.so'} could not be opened" in said


def test_a_wheel_that_carries_it_comes_before_the_systems_and_is_not_run(tmp_path: Path) -> None:
    package = tmp_path / "emptcp_libbpf"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('was run')")
    (package / "libbpf.so.1").symlink_to(library().path)
    code = "import emptcp.pybpf.libbpf as l; print(l.carried_library()); print(l.library().version)"
    said = python(code, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", EMPTCP_LIBBPF="")
    assert said.splitlines() == [str(package / "libbpf.so.1"), str(library().version)]


def test_when_there_is_none_all_three_places_are_named() -> None:
    code = f"import emptcp.pybpf.libbpf as l; l.SONAME = 'libnothing.so.1'\n{FIND}"
    said = python(code, EMPTCP_LIBBPF="")
    for place in ("EMPTCP_LIBBPF", "emptcp_libbpf", "libnothing.so.1", "libbpf1"):
        assert place in said


def test_a_library_that_is_not_libbpf_is_refused() -> None:
    found = python("import ctypes.util; print(ctypes.util.find_library('m'))")
    assert "emptcp needs 1.0 or later" in python(FIND, EMPTCP_LIBBPF=found)


def test_a_function_that_is_lacking_is_a_missing_feature() -> None:
    with pytest.raises(MissingFeature, match="has no bpf_never_written"):
        library().function("bpf_never_written")


def test_what_libbpf_says_is_collected_and_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = library()
    with collect() as said:
        found.lib.bpf_object__open_mem(b"junk", 4, found.ffi.NULL)
    assert any("ELF" in line for line in said)
    found.lib.bpf_object__open_mem(b"junk", 4, found.ffi.NULL)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("table", "function", "spelling"),
    [
        (kinds.PROGRAMS, "libbpf_bpf_prog_type_str", {}),
        (kinds.MAPS, "libbpf_bpf_map_type_str", {}),
        (kinds.ATTACH, "libbpf_bpf_attach_type_str", {"trace_raw_tp": "trace_raw_tp"}),
        ({name: number for number, name in kinds.LINKS.items()}, "libbpf_bpf_link_type_str", {}),
    ],
)
def test_the_names_of_kinds_are_libbpfs(
    table: dict[str, int], function: str, spelling: dict[str, str]
) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(f"const char *{function}(int);")
    text = getattr(ffi.dlopen(library().path), function)
    for name, number in table.items():
        said = text(number)
        if said != ffi.NULL:  # newer than this libbpf
            assert ffi.string(said).decode() == spelling.get(name, name)


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(BpfError, match="'xpd' is no kind of program") as caught:
        kinds.number(kinds.PROGRAMS, "program", "xpd")
    assert "sched_cls" in caught.value.fix
