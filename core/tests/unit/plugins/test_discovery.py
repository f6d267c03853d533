# SPDX-License-Identifier: Apache-2.0
"""Plugins are found without being run, and a broken one is a row like any other."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from emptcp.plugins import discovery, state


def test_an_installed_plugin_is_found_with_what_its_manifest_says(site: Any) -> None:
    root = site.add()
    plugin = site.row()
    assert (plugin.name, plugin.version, plugin.package, plugin.folder) == (
        "cap",
        "1.0",
        "someones_cap",
        root,
    )
    assert plugin.provides == ("selector is_capped", "actor cap", "key cap_key", "command caps")
    assert plugin.id == "someones-cap:cap"


def test_listing_never_imports_a_plugin(site: Any) -> None:
    root = site.add()
    site.row()
    assert "someones_cap" not in sys.modules
    assert not Path(root, "imported").exists()


def test_enabling_and_disabling_never_import_a_plugin(site: Any) -> None:
    root = site.add()
    state.enable("cap")
    state.disable("cap")
    assert not Path(root, "imported").exists()


def test_a_dotted_entry_point_is_invalid_and_its_parent_is_not_run(site: Any) -> None:
    root = site.add(entry="someones_cap.inner")
    plugin = site.row()
    assert plugin.state == discovery.INVALID
    assert "'someones_cap.inner' is no name of a package" in plugin.reason
    assert not Path(root, "imported").exists()


@pytest.mark.parametrize(
    ("manifest", "reason", "fix"),
    [
        ("name = [", "emptcp.toml:1:9: the TOML is broken", "toml.io"),
        ('nam = "cap"', "emptcp.toml:1:1: the manifest has no key 'nam'", "did you mean 'name'?"),
        ('abi = 7\nname = "cap"', "emptcp.toml:1:7: the plugin is made for chain ABI 7", "chain ABI 1"),
        ('hook_api = 99\nname = "cap"', "made for hook API 99", "hook API 1"),
        ("schema = 2\nnew_key = 1", "made for manifest schema 2", "manifest schema 1"),
        ('name = "other"', "the manifest is of 'other', the entry point of 'cap'", "same name"),
        (
            'name = "cap"\nobject = "gone.bpf.o"',
            "the object gone.bpf.o is missing",
            "install the plugin again",
        ),
        ('name = "cap"\nobject = "../x.bpf.o"', "'../x.bpf.o' can't be the object", "own folder"),
        ('name = "cap"\nmodule = "os.path"', "module 'os.path' is outside package", "own package"),
    ],
)
def test_a_broken_manifest_is_a_row_with_reason_and_fix(
    site: Any, manifest: str, reason: str, fix: str
) -> None:
    site.add(manifest=manifest)
    site.add("fine")
    plugin = site.row()
    assert plugin.state == discovery.INVALID
    assert reason in plugin.reason
    assert fix in plugin.fix
    assert site.row("someones-fine").state == discovery.FOUND


def test_a_manifest_of_junk_is_a_row_too(site: Any) -> None:
    root = site.add()
    Path(root, "emptcp.toml").write_bytes(os.urandom(64) + b"\xff")
    assert site.row().state == discovery.INVALID


def test_a_package_that_is_gone_is_a_row_too(site: Any) -> None:
    site.add(entry="someones_nothing")
    assert "package 'someones_nothing' can't be found" in site.row().reason


def test_a_single_module_has_no_folder_for_a_manifest(site: Any) -> None:
    site.add(entry="someones_module")
    Path(site.folder, "someones_module.py").write_text("raise SystemExit('imported')")
    assert "package 'someones_module' can't be found" in site.row().reason


def test_a_missing_manifest_is_named(site: Any) -> None:
    root = site.add()
    Path(root, "emptcp.toml").unlink()
    assert "emptcp.toml' can't be read: No such file" in site.row().reason


def test_metadata_without_a_version_blocks_nobody(site: Any) -> None:
    site.add()
    Path(site.folder, "someones_cap-1.0.dist-info", "METADATA").write_text("Name: someones-cap\n")
    site.add("fine")
    assert site.row("someones-fine").state == discovery.FOUND


def test_entry_points_that_are_broken_are_a_row_and_hide_no_other_plugin(site: Any) -> None:
    site.add()
    site.add("fine")
    broken = Path(site.folder, "someones_cap-1.0.dist-info", "entry_points.txt")
    broken.write_text("[emptcp.plugins]\nno equals sign\n")
    assert (site.row().state, site.row().reason) == (discovery.INVALID, "its entry points can't be read")
    assert site.row("someones-fine").state == discovery.FOUND


def test_broken_metadata_of_what_is_no_plugin_is_nobodys_row(site: Any) -> None:
    site.add()
    site.add("fine")
    Path(site.folder, "someones_cap-1.0.dist-info", "entry_points.txt").write_text(
        "[other]\nno equals sign\n"
    )
    assert "someones-cap" not in [plugin.distribution for plugin in state.judged()]
    assert site.row("someones-fine").state == discovery.FOUND


def age(folder: Path, when: int = 1_000_000) -> None:
    """Let all files of a folder have changed long ago, and what holds them."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (when, when))


@pytest.fixture
def known(site: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a plugin that was found, all else being old: nothing is looked for again."""
    root = site.add()
    age(site.folder)
    monkeypatch.setattr(sys, "path", [str(site.folder)])
    monkeypatch.setattr(discovery, "_last", None)
    monkeypatch.setattr(discovery, "_asked", False)
    discovery.discover()
    found = discovery.discover()
    with monkeypatch.context() as broken:
        broken.setattr(discovery, "_discovered", lambda: pytest.fail("it was looked for again"))
        assert [plugin.id for plugin in discovery.discover()] == ["someones-cap:cap"]
        assert discovery.discover() == found
    return Path(root)


def test_a_changed_manifest_is_read_again(known: Path) -> None:
    Path(known, "emptcp.toml").write_text("name = [")
    assert [plugin.state for plugin in discovery.discover()] == [discovery.INVALID]


def test_a_lost_object_is_noticed(known: Path) -> None:
    Path(known, "cap.bpf.o").unlink()
    assert [plugin.state for plugin in discovery.discover()] == [discovery.INVALID]


def test_changed_metadata_are_read_again(known: Path) -> None:
    (metadata,) = known.parent.glob("*.dist-info/METADATA")
    metadata.write_text("Metadata-Version: 2.1\nName: someones-cap\nVersion: 1.1\n")
    assert [plugin.version for plugin in discovery.discover()] == ["1.1"]


def test_plugins_that_come_and_go_are_noticed(known: Path, site: Any) -> None:
    site.add("other")
    assert [plugin.name for plugin in discovery.discover()] == ["cap", "other"]
    site.remove("someones-cap")
    assert [plugin.name for plugin in discovery.discover()] == ["other"]


def test_a_distribution_that_gets_a_plugin_in_place_is_noticed(known: Path, site: Any) -> None:
    root = site.add("late")
    (points,) = known.parent.glob("someones_late-*.dist-info/entry_points.txt")
    text = points.read_text()
    points.unlink()
    age(site.folder, 2_000_000)
    assert [plugin.name for plugin in discovery.discover()] == ["cap"]
    assert [plugin.name for plugin in discovery.discover()] == ["cap"]
    points.write_text(text)
    assert [plugin.name for plugin in discovery.discover()] == ["cap", "late"]
    assert root.is_dir()


def test_another_place_to_search_is_noticed(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(known)])
    assert discovery.discover() == []


def test_what_has_just_changed_is_looked_for_again(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add()
    monkeypatch.setattr(sys, "path", [str(site.folder)])
    monkeypatch.setattr(discovery, "_last", None)
    discovery.discover()
    discovery.discover()
    looked: list[bool] = []
    monkeypatch.setattr(discovery, "_discovered", lambda: looked.append(True) or [])
    discovery.discover()
    assert looked
