# SPDX-License-Identifier: Apache-2.0
"""Compiling a distribution's BPF C: what is compiled, when again, and what the bytes depend on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from emptcp_sdk.build import build, object_of, remove, sources_of
from emptcp_sdk.cli import main
from emptcp_sdk.compiler import find_compiler
from emptcp_sdk.errors import BuildError

PROGRAM = """\
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "answer.h"
__attribute__((section("tc"), used)) int answer(void *context)
{
    return context ? ANSWER : 0;
}
"""


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    return make_distribution(tmp_path / "plugin")


def make_distribution(folder: Path) -> Path:
    package = folder / "src" / "package"
    package.mkdir(parents=True)
    (package / "answer.bpf.c").write_text(PROGRAM)
    (package / "answer.h").write_text("#define ANSWER 42\n")
    return folder


def compiled(distribution: Path) -> list[str]:
    return [result.object.name for result in build(distribution) if result.compiled]


def test_an_object_for_bpf_stands_beside_its_source(distribution: Path) -> None:
    (result,) = build(distribution)
    assert result.object == distribution / "src" / "package" / "answer.bpf.o"
    machine = result.object.read_bytes()[18:20]
    assert int.from_bytes(machine, "little") == 247, "EM_BPF"


def test_nothing_is_left_but_the_object_and_its_record(distribution: Path) -> None:
    build(distribution)
    names = sorted(path.name for path in (distribution / "src" / "package").iterdir())
    assert names == ["answer.bpf.c", "answer.bpf.json", "answer.bpf.o", "answer.h"]


def test_the_record_names_the_compiler_the_flags_and_every_file_read(distribution: Path) -> None:
    (result,) = build(distribution)
    record = json.loads(result.object.with_suffix(".json").read_text())
    assert record["compiler"] == find_compiler().version
    assert {"-O2", "-mcpu=v3", "-nostdinc", "-Werror"} <= set(record["flags"])
    assert list(record["sources"]) == ["answer.bpf.c", "answer.h"]


def test_a_header_of_bpf_common_is_recorded_by_its_include_name(distribution: Path) -> None:
    source = distribution / "src" / "package" / "answer.bpf.c"
    source.write_text("#include <emptcp/abi.h>\n" + PROGRAM)
    (result,) = build(distribution)
    record = json.loads(result.object.with_suffix(".json").read_text())
    assert "emptcp/abi.h" in record["headers"]


def test_a_second_build_compiles_nothing(distribution: Path) -> None:
    build(distribution)
    assert compiled(distribution) == []


@pytest.mark.parametrize("name", ["answer.bpf.c", "answer.h"])
def test_a_changed_input_is_compiled_again(distribution: Path, name: str) -> None:
    build(distribution)
    path = distribution / "src" / "package" / name
    path.write_text(path.read_text() + "/* more */\n")
    assert compiled(distribution) == ["answer.bpf.o"]


def test_a_touched_but_equal_input_is_not_compiled_again(distribution: Path) -> None:
    build(distribution)
    os.utime(distribution / "src" / "package" / "answer.h", (0, 0))
    assert compiled(distribution) == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"junk")])
@pytest.mark.parametrize("suffix", [".o", ".json"])
def test_a_missing_or_damaged_result_is_made_again(distribution: Path, suffix: str, damage: object) -> None:
    (result,) = build(distribution)
    before = result.object.read_bytes()
    assert callable(damage)
    damage(result.object.with_suffix(suffix))
    assert compiled(distribution) == ["answer.bpf.o"]
    assert result.object.read_bytes() == before


def test_another_compiler_compiles_again(
    distribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(distribution)
    monkeypatch.setenv("EMPTCP_CLANG", str(another_clang(tmp_path)))
    assert compiled(distribution) == ["answer.bpf.o"]


def another_clang(folder: Path) -> Path:
    """Write a script that compiles with the real clang, and says it is another version."""
    script = folder / "another clang"
    real = find_compiler().path
    script.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo another 1.0; exit; }}\nexec {real} "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_the_bytes_do_not_depend_on_where_the_tree_lies(tmp_path: Path) -> None:
    places = [
        make_distribution(tmp_path / name) for name in ("short", "a longer folder/with spaces, and a $")
    ]
    results = [build(place)[0].object for place in places]
    assert results[0].read_bytes() == results[1].read_bytes()
    assert results[0].with_suffix(".json").read_bytes() == results[1].with_suffix(".json").read_bytes()
    assert os.fsencode(tmp_path) not in results[0].read_bytes()


def test_a_source_that_does_not_compile_shows_what_clang_said(distribution: Path) -> None:
    (distribution / "src" / "package" / "answer.h").write_text("#define ANSWER forty_two\n")
    with pytest.raises(BuildError, match=r"answer\.bpf\.c does not compile") as refusal:
        build(distribution)
    assert "use of undeclared identifier 'forty_two'" in refusal.value.output
    assert not object_of(sources_of(distribution)[0]).exists()


def test_a_failed_build_leaves_the_object_that_was_there(distribution: Path) -> None:
    (result,) = build(distribution)
    before = result.object.read_bytes()
    (distribution / "src" / "package" / "answer.h").write_text("#error no\n")
    with pytest.raises(BuildError):
        build(distribution)
    assert result.object.read_bytes() == before


def test_a_missing_clang_is_named_with_the_way_to_get_one(
    distribution: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMPTCP_CLANG", "no-such-clang")
    assert main(["build", str(distribution)]) == 1
    said = capsys.readouterr().err
    assert "'no-such-clang' was not found" in said
    assert "apt-get install clang" in said
    assert len(said.splitlines()) == 2


def test_a_clang_that_does_not_run_is_refused(distribution: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_CLANG", "false")
    with pytest.raises(BuildError, match="--version' failed"):
        build(distribution)


def test_a_distribution_without_programs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(BuildError, match=r"there is no \*\.bpf\.c under its src folder"):
        build(tmp_path)


def test_the_command_says_what_it_compiled_and_nothing_more(
    distribution: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(distribution)]) == 0
    assert capsys.readouterr().out == f"compiled {distribution}/src/package/answer.bpf.o\n"
    assert main(["build", str(distribution)]) == 0
    assert capsys.readouterr().out == ""


def test_remove_deletes_objects_and_records_and_leaves_sources(distribution: Path) -> None:
    build(distribution)
    remove(distribution)
    names = sorted(path.name for path in (distribution / "src" / "package").iterdir())
    assert names == ["answer.bpf.c", "answer.h"]
