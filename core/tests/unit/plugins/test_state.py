# SPDX-License-Identifier: Apache-2.0
"""Installed is not enabled; what changed is enabled again or not used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins import discovery, state


def test_a_strangers_plugin_is_found_until_it_is_enabled(site: Any) -> None:
    site.add()
    before = site.row()
    assert (before.state, before.usable) == (discovery.FOUND, False)
    assert before.fix == "Run: emptcp plugins enable cap"
    state.enable("cap")
    assert (site.row().state, site.row().usable) == (discovery.ENABLED, True)


def test_a_disabled_one_is_not_used_until_it_is_enabled_again(site: Any) -> None:
    site.add()
    state.enable("cap")
    state.disable("cap")
    assert (site.row().state, site.row().usable) == (discovery.DISABLED, False)
    state.enable("someones-cap:cap")
    assert site.row().usable


@pytest.mark.parametrize("editable", [False, True])
def test_the_projects_own_are_enabled_from_the_start_and_can_be_disabled(site: Any, editable: bool) -> None:
    site.add(distribution="emptcp-actor-record", editable=editable)
    assert site.row("emptcp-actor-record").state == discovery.ENABLED
    state.disable("emptcp-actor-record:cap")
    assert site.row("emptcp-actor-record").state == discovery.DISABLED


def test_first_party_is_an_exact_list() -> None:
    assert {
        "emptcp-actor-add-option",
        "emptcp-actor-add-subflow",
        "emptcp-actor-blk-subflow",
        "emptcp-actor-drop",
        "emptcp-actor-get-connect",
        "emptcp-actor-get-subflow",
        "emptcp-actor-rate-limit",
        "emptcp-actor-record",
        "emptcp-actor-remove-option",
        "emptcp-actor-set-backup",
        "emptcp-actor-steer",
        "emptcp-multitenant-steer",
        "emptcp-pathmanager-gradual",
        "emptcp-scheduler-ecf",
        "emptcp-scheduler-weighted",
        "emptcp-selector-address",
        "emptcp-selector-connection",
        "emptcp-selector-ip-pair",
        "emptcp-selector-option",
        "emptcp-selector-packet-type",
        "emptcp-selector-sample",
        "emptcp-selector-sequence",
        "emptcp-selector-subflow",
        "emptcp-bench",
    } == state.FIRST_PARTY


def test_a_name_that_only_looks_like_the_projects_own_is_a_strangers(site: Any) -> None:
    site.add(distribution="emptcp-actor-record2")
    assert site.row("emptcp-actor-record2").state == discovery.FOUND


@pytest.mark.parametrize("file", ["emptcp.toml", "hooks.py", "cap.bpf.o", "__init__.py"])
def test_a_change_to_any_file_is_noticed_and_refused_until_enabled_again(site: Any, file: str) -> None:
    root = site.add()
    state.enable("cap")
    with open(Path(root, file), "ab") as output:
        output.write(b"\n# changed\n")
    assert (site.row().state, site.row().usable) == (discovery.CHANGED, False)
    assert "its files changed since it was enabled" in site.row().reason
    state.enable("cap")
    assert site.row().usable


def test_a_file_that_was_added_is_a_change(site: Any) -> None:
    root = site.add()
    state.enable("cap")
    Path(root, "hooks").mkdir()
    Path(root, "hooks", "__init__.py").write_text("a package that hides hooks.py")
    assert site.row().state == discovery.CHANGED


def test_a_change_to_the_metadata_is_a_change_unless_it_is_the_record(site: Any) -> None:
    site.add()
    state.enable("cap")
    info = Path(site.folder, "someones_cap-1.0.dist-info")
    Path(info, "RECORD").write_text(Path(info, "RECORD").read_text() + "\n")
    assert site.row().usable
    Path(info, "entry_points.txt").write_text("[emptcp.plugins]\ncap = someones_cap\n# more\n")
    assert site.row().state == discovery.CHANGED


def test_the_interpreters_cache_is_no_change(site: Any) -> None:
    root = site.add()
    state.enable("cap")
    subprocess.run([sys.executable, "-m", "compileall", "-q", root], check=True)
    assert any(root.rglob("*.pyc"))
    assert site.row().usable


def test_a_new_version_is_told_by_both_numbers(site: Any) -> None:
    site.add()
    state.enable("cap")
    site.add(version="1.1")
    assert site.row().state == discovery.CHANGED
    assert "1.0 to 1.1" in site.row().reason


def test_an_editable_install_is_enabled_by_its_path(site: Any) -> None:
    root = site.add(editable=True)
    state.enable("cap")
    assert f'path = "{root}"' in state.file().read_text()
    Path(root, "hooks.py").write_text("")
    assert site.row().usable
    site.add(editable=False)
    assert site.row().state == discovery.CHANGED
    assert site.row().reason == f"it is no longer the editable install of {root} that was enabled"


def test_an_editable_install_elsewhere_is_another(site: Any) -> None:
    root = site.add(editable=True)
    state.enable("cap")
    state.file().write_text(state.file().read_text().replace(f'path = "{root}"', 'path = "/elsewhere"'))
    assert site.row().state == discovery.CHANGED


def test_what_was_enabled_by_its_files_is_another_when_it_becomes_editable(site: Any) -> None:
    site.add()
    state.enable("cap")
    site.add(editable=True)
    assert site.row().state == discovery.CHANGED
    assert "its files changed since it was enabled" in site.row().reason


def test_what_runs_is_active_and_names_its_policies(site: Any) -> None:
    site.add()
    state.enable("cap")
    plugin = site.row(cap=["home", "work"])
    assert (plugin.state, plugin.usable) == (discovery.ACTIVE, True)
    assert plugin.reason == "in policy 'home', 'work'"


def test_what_was_changed_while_it_runs_says_both(site: Any) -> None:
    root = site.add()
    state.enable("cap")
    Path(root, "hooks.py").write_text("")
    plugin = site.row(cap=["home"])
    assert plugin.state == discovery.CHANGED
    assert "goes on running in policy 'home'" in plugin.reason


def test_what_was_uninstalled_while_it_runs_is_orphaned(site: Any) -> None:
    site.add()
    state.enable("cap")
    site.remove("someones-cap")
    orphan = site.row(cap=["home"])
    assert (orphan.state, orphan.name, orphan.version) == (discovery.ORPHANED, "cap", "1.0")
    assert "keeps running in policy 'home'" in orphan.reason


def test_what_was_never_enabled_and_is_gone_can_be_orphaned_too(site: Any) -> None:
    orphan = next(p for p in state.judged({"gone-dist:gone": ["p"]}) if p.name == "gone")
    assert (orphan.state, orphan.distribution) == (discovery.ORPHANED, "gone-dist")


def test_the_second_enable_of_a_taken_name_fails_and_names_both(site: Any) -> None:
    site.add(distribution="dist-a")
    site.add(distribution="dist-b")
    state.enable("dist-a:cap")
    with pytest.raises(EmptcpError) as caught:
        state.enable("dist-b:cap")
    assert "dist-b:cap" in str(caught.value)
    assert "dist-a:cap" in str(caught.value)
    assert "emptcp plugins disable dist-a:cap" in caught.value.fix
    state.disable("dist-a:cap")
    state.enable("dist-b:cap")
    assert site.row("dist-b").usable


def test_a_taken_name_of_one_stage_is_enough(site: Any) -> None:
    site.add(distribution="dist-a")
    other = 'name = "x"\nobject = "x.bpf.o"\n[[actor]]\nname = "cap"\nhooks = ["ingress"]\n'
    site.add("x", distribution="dist-b", manifest=other)
    state.enable("cap")
    with pytest.raises(EmptcpError, match="already has the name of its actor cap"):
        state.enable("x")


def test_a_name_that_two_have_must_be_qualified(site: Any) -> None:
    site.add(distribution="dist-a")
    site.add(distribution="dist-b")
    with pytest.raises(EmptcpError, match="may be dist-a:cap and dist-b:cap"):
        state.enable("cap")


def test_an_unknown_name_gets_a_hint(site: Any) -> None:
    site.add("capper")
    with pytest.raises(EmptcpError, match="did you mean 'capper'"):
        state.enable("caper")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('type = "rate"', 'type = "ipaddr"', "does not fit its struct: struct emptcp_address"),
        ('name = "wait"', 'name = "pause"', "parameter 'pause' of actor 'cap' does not fit"),
        ('fragment = "cap"', 'fragment = "cup"', "no section emptcp.xdp/cup"),
        ('["int", "port", "port"]', '["int"]', "struct of key 'cap_key' has 8 bytes, and its fields have 4"),
        ('fragment = "cap_key"', 'fragment = "key"', "no section emptcp.xdp/key"),
        ('fragment = "note_ack"', 'fragment = "note"', "no section emptcp.xdp/note"),
        (
            '[[actor.parameter]]\nname = "port"\ntype = "port"\n',
            "",
            "a member 'port' that no parameter names",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_its_object_can_not_be_enabled(
    site: Any, old: str, new: str, words: str
) -> None:
    root = site.add()
    manifest = Path(root, "emptcp.toml")
    text = manifest.read_text().replace('min = "1mbit"\nmax = "1gbit"\n', "")
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    with pytest.raises(EmptcpError) as caught:
        state.enable("cap")
    assert "plugin 'cap' can't be enabled" in str(caught.value)
    assert words in str(caught.value)
    assert not site.row().usable


def test_an_object_of_another_abi_can_not_be_enabled(site: Any) -> None:
    root = site.add()
    path = Path(root, "cap.bpf.o")
    content = bytearray(path.read_bytes())
    # struct emptcp_abi: record size 64, then the ABI.
    at = content.index((64).to_bytes(4, "little") + (1).to_bytes(2, "little"))
    for record in range(3):
        content[at + 64 * record + 4] = 9
    path.write_bytes(content)
    with pytest.raises(EmptcpError, match="is made for chain ABI 9, this emptcp has 1"):
        state.enable("cap")


def test_an_object_of_junk_can_not_be_enabled(site: Any) -> None:
    root = site.add()
    Path(root, "cap.bpf.o").write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(EmptcpError, match=r"the object cap.bpf.o can't be read"):
        state.enable("cap")


def test_an_invalid_plugin_can_be_disabled(site: Any) -> None:
    site.add(manifest="junk")
    state.disable("cap")
    assert site.row().state == discovery.INVALID


# The file


def test_the_state_file_can_be_read_by_all_and_written_by_root_alone(site: Any) -> None:
    site.add()
    state.enable("cap")
    assert stat.S_IMODE(state.file().stat().st_mode) == 0o644
    assert stat.S_IMODE(Path(state.folder(), ".lock").stat().st_mode) == 0o600
    assert [path.name for path in sorted(state.folder().iterdir())] == [".lock", "plugins.toml"]


def test_a_broken_state_file_is_told_with_its_place_and_nothing_is_guessed(site: Any) -> None:
    state.folder().mkdir()
    state.file().write_text("schema = 1\n[[plugin]]\nnam = 1\n")
    with pytest.raises(EmptcpError, match=r"plugins.toml:3:1: a plugin's entry has no key 'nam'"):
        state.judged()


def test_two_enabling_at_once_lose_nothing(site: Any) -> None:
    names = [f"p{number}" for number in range(6)]
    for name in names:
        site.add(name, manifest=f'name = "{name}"')
    threads = [threading.Thread(target=state.enable, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(site.row(f"someones-{name}").usable for name in names)


def test_without_the_right_to_write_the_sentence_asks_for_root(site: Any) -> None:
    site.add()
    state.folder().mkdir(mode=0o755)
    state.folder().chmod(0o555)
    as_nobody = "import contextlib, os\nwith contextlib.suppress(PermissionError): os.setuid(65534)\n"
    program = f"from emptcp.plugins import state\n{as_nobody}state.enable('cap')"
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "EmptcpError: enabling and disabling plugins needs root" in ran.stderr
    assert "Run it with sudo." in ran.stderr
