# SPDX-License-Identifier: Apache-2.0
"""Each distribution stands on its own: it builds from its own sdist, and installs from a folder of wheels."""

from __future__ import annotations

import json
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import FOLDERS, ROOT, Workshop, run

# The first test waits for all that is built.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(200)]

LICENCES = ["Apache-2.0.txt", "BSD-2-Clause.txt", "GPL-2.0-only.txt"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_is_built_from_the_sdist_alone(workshop: Workshop, folder: str) -> None:
    assert workshop.built[folder].wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_texts_of_the_licences_travel_as_files(workshop: Workshop, folder: str) -> None:
    with tarfile.open(workshop.built[folder].sdist) as archive:
        texts = [entry for entry in archive.getmembers() if entry.name.split("/")[1] == "LICENSES"]
        assert sorted(Path(entry.name).name for entry in texts) == LICENCES
        assert all(entry.isfile() and entry.size > 1000 for entry in texts)
    with zipfile.ZipFile(workshop.built[folder].wheel) as wheel:
        assert sorted(Path(name).name for name in wheel.namelist() if "/licenses/" in name) == LICENCES


@pytest.mark.parametrize("folder", [name for name in FOLDERS if list((ROOT / name / "src").rglob("*.bpf.c"))])
def test_a_wheel_carries_an_object_for_each_bpf_source(workshop: Workshop, folder: str) -> None:
    sources = {path.relative_to(ROOT / folder / "src") for path in (ROOT / folder / "src").rglob("*.bpf.c")}
    with zipfile.ZipFile(workshop.built[folder].wheel) as wheel:
        objects = {Path(name) for name in wheel.namelist() if name.endswith(".bpf.o")}
    assert objects == {path.with_suffix(".o") for path in sources}


def test_the_headers_travel_in_bpf_common(workshop: Workshop) -> None:
    folder = ROOT / "bpf_common" / "src"
    with zipfile.ZipFile(workshop.built["bpf_common"].wheel) as wheel:
        packed = {name for name in wheel.namelist() if name.endswith(".h")}
    assert packed == {path.relative_to(folder).as_posix() for path in folder.rglob("*.h")}


def test_the_unit_of_systemd_travels_where_pip_puts_it_for_the_system(workshop: Workshop) -> None:
    unit = ROOT / "core" / "systemd" / "emptcpd.service"
    with zipfile.ZipFile(workshop.built["core"].wheel) as wheel:
        (name,) = (
            one for one in wheel.namelist() if one.endswith(".data/data/lib/systemd/system/emptcpd.service")
        )
        assert wheel.read(name) == unit.read_bytes()


def test_a_wheel_built_again_elsewhere_has_the_same_bytes(workshop: Workshop, tmp_path: Path) -> None:
    first = workshop.built["plugins/actor-set-backup"]
    assert workshop.wheel(first.sdist, tmp_path).read_bytes() == first.wheel.read_bytes()


def plugins_in(bin_folder: Path, scratch: Path) -> list[dict[str, str]]:
    answer = run(bin_folder / "emptcp", "plugins", "list", "--json", cwd=scratch, EMPTCP_ETC=scratch / "etc")
    listing = json.loads(answer.stdout)
    assert listing["schema"] == 1
    rows: list[dict[str, str]] = listing["plugins"]
    return rows


def test_core_works_without_any_plugin(environment: Callable[[str], Path], tmp_path: Path) -> None:
    assert plugins_in(environment("emptcp"), tmp_path) == []


def test_the_standard_extra_brings_the_plugins_of_this_tree_enabled(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = [tomllib.loads(path.read_text()) for path in ROOT.glob("plugins/*/pyproject.toml")]
    names = [name for one in settings for name in one["project"]["entry-points"]["emptcp.plugins"]]
    rows = plugins_in(environment("emptcp[standard]"), tmp_path)
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(names, "enabled")
    assert len(names) > 15
