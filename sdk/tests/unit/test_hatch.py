# SPDX-License-Identifier: Apache-2.0
"""The build hook as hatchling runs it, from a plugin's pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PYPROJECT = """\
[build-system]
requires = ["hatchling", "emptcp-sdk"]
build-backend = "hatchling.build"
[project]
name = "answer"
version = "1"
requires-python = ">=3.11"
[tool.hatch.build.targets.wheel]
packages = ["src/answer"]
hooks.emptcp = {}
"""

PROGRAM = '__attribute__((section("tc"), used)) int answer(void *context)\n{\n    return !context;\n}\n'


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    package = folder / "src" / "answer"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / ".gitignore").write_text("*.bpf.o\n*.bpf.json\n")
    (package / "__init__.py").touch()
    (package / "answer.bpf.c").write_text(PROGRAM)
    return folder


def hatchling(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def wheel_of(plugin: Path) -> Path:
    answer = hatchling(plugin, "--target", "wheel")
    assert answer.returncode == 0, answer.stderr
    (wheel,) = (plugin / "dist").glob("*.whl")
    return wheel


def test_a_wheel_carries_the_object_although_version_control_ignores_it(plugin: Path) -> None:
    names = zipfile.ZipFile(wheel_of(plugin)).namelist()
    assert {"answer/answer.bpf.o", "answer/answer.bpf.json"} <= set(names)


def test_a_wheel_with_objects_fits_every_machine(plugin: Path) -> None:
    assert wheel_of(plugin).name == "answer-1-py3-none-any.whl"


def test_building_twice_gives_the_same_wheel(plugin: Path) -> None:
    first = wheel_of(plugin).read_bytes()
    for made in (plugin / "src" / "answer").glob("*.bpf.[oj]*"):
        made.unlink()
    assert wheel_of(plugin).read_bytes() == first


def test_a_source_distribution_carries_no_object(plugin: Path) -> None:
    wheel_of(plugin)
    assert hatchling(plugin, "--target", "sdist").returncode == 0
    with tarfile.open(plugin / "dist" / "answer-1.tar.gz") as archive:
        names = archive.getnames()
    assert "answer-1/src/answer/answer.bpf.c" in names
    assert not [name for name in names if name.endswith((".bpf.o", ".bpf.json"))]


def test_an_editable_build_compiles_beside_the_sources(plugin: Path) -> None:
    assert hatchling(plugin, "--target", "wheel:editable").returncode == 0
    assert (plugin / "src" / "answer" / "answer.bpf.o").is_file()


def test_a_missing_clang_stops_the_build_without_a_traceback(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_CLANG", "no-such-clang")
    answer = hatchling(plugin, "--target", "wheel")
    assert answer.returncode == 1
    assert "'no-such-clang' was not found" in answer.stderr
    assert "Traceback" not in answer.stderr
