# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no linter knows: licences by file, small plugins, complete lists."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import Any

import pytest

from emptcp.pybpf.feature_table import FEATURES

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = ("core", "bpf_common", "sdk", "bench", "plugins", "tests", "tools")
PLUGINS = sorted(ROOT.glob("plugins/*/"))
PYTHON_LICENCE = "# SPDX-License-Identifier: Apache-2.0"
BPF_LICENCE = "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */"


def files(*patterns: str) -> list[Path]:
    return sorted(
        path for folder in WORKSPACE for pattern in patterns for path in (ROOT / folder).rglob(pattern)
    )


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def package_of(plugin: Path) -> str:
    return f"emptcp_{plugin.name.replace('-', '_')}"


def without_first_line(paths: list[Path], line: str) -> list[Path]:
    assert paths
    return [path for path in paths if path.read_text(encoding="utf-8").split("\n", 1)[0] != line]


def test_python_begins_with_its_licence() -> None:
    assert without_first_line(files("*.py"), PYTHON_LICENCE) == []


def test_manifests_and_settings_begin_with_their_licence() -> None:
    assert without_first_line(files("pyproject.toml", "emptcp.toml"), PYTHON_LICENCE) == []


def test_bpf_begins_with_its_two_licences() -> None:
    assert without_first_line(files("*.bpf.c", "*.h"), BPF_LICENCE) == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_settings_of_a_plugin_are_at_most_25_lines(plugin: Path) -> None:
    assert len((plugin / "pyproject.toml").read_text().splitlines()) <= 25


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_is_a_folder_with_manifest_program_readme_and_tests(plugin: Path) -> None:
    package = plugin / "src" / package_of(plugin)
    assert (package / "emptcp.toml").is_file()
    found = toml(package / "emptcp.toml")
    if "controller" in found:
        modules = [one["class"].partition(":")[0].rpartition(".")[2] for one in found["controller"]]
        assert all((package / f"{name}.py").is_file() for name in modules)
    if "object" in found or "controller" not in found:
        assert (package / found["object"]).with_suffix(".c").is_file()
    assert (plugin / "README.md").is_file()
    assert list((plugin / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_the_entry_point_of_a_plugin_is_its_top_level_package(plugin: Path) -> None:
    points = toml(plugin / "pyproject.toml")["project"]["entry-points"]["emptcp.plugins"]
    assert list(points.values()) == [package_of(plugin)]


def test_the_standard_extra_is_every_plugin_of_this_tree() -> None:
    extra = toml(ROOT / "core" / "pyproject.toml")["project"]["optional-dependencies"]["standard"]
    assert [entry.partition("==")[0] for entry in extra] == [f"emptcp-{plugin.name}" for plugin in PLUGINS]


def test_the_linters_know_every_plugin() -> None:
    settings = toml(ROOT / "pyproject.toml")["tool"]
    packages = {package_of(plugin) for plugin in PLUGINS}
    core_rule, plugin_rule = settings["importlinter"]["contracts"][-2:]
    assert packages == set(plugin_rule["source_modules"])
    assert packages <= set(core_rule["forbidden_modules"])
    assert packages <= set(settings["importlinter"]["root_packages"])
    assert packages <= set(settings["ruff"]["lint"]["isort"]["known-first-party"])


def test_the_import_rule_of_plugins_forbids_all_of_core_but_its_api() -> None:
    core = ROOT / "core" / "src" / "emptcp"
    packages = {path.parent.name for path in core.glob("*/__init__.py")}
    modules = {path.stem for path in core.glob("*.py") if path.stem != "__init__"}
    rule = toml(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"][-1]
    assert {f"emptcp.{name}" for name in (packages | modules) - {"api"}} == set(rule["forbidden_modules"])


def test_the_fallback_lane_switches_off_all_that_emptcp_has_another_way_for() -> None:
    lane = configparser.ConfigParser(interpolation=None)
    lane.read(ROOT / "tox.ini", encoding="utf-8")
    _, _, names = lane["testenv:kernel-fallbacks{,-all}"]["set_env"].partition("=")
    alike = {name for name, feature in FEATURES.items() if feature.otherwise and not feature.lesser}
    assert set(names.strip().split(",")) == alike
