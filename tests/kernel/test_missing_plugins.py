# SPDX-License-Identifier: Apache-2.0
"""A plugin that was disabled, changed or uninstalled: its policies can be removed, and hinder few others."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running, tables
from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "{table}"
[[policy]]
name = "{table}'s"
hook = "ingress"
dev = "left0"
do = ["{actor}()"]
"""
HOOKS = """
from pathlib import Path
from emptcp.api import hookimpl

@hookimpl
def emptcp_removed(change):
    Path("{heard}").write_text(change.stage.type.name)
"""
MARKED, COUNTED = "mark", "record"

Write = Callable[..., str]
Apply = Callable[..., Any]
Lose = Callable[[str], None]

WAYS = {
    "disabled": "actor 'mark' comes from plugin 'mark', which is disabled",
    "changed": "actor 'mark' comes from plugin 'mark', which is changed",
    "uninstalled": "plugin 'mark' is not installed any more",
}


@pytest.fixture
def apply(netns: Callable[[], str], emptcp: Any, write: Write) -> Apply:
    """Return what puts a table of one actor in force on left0 of one namespace."""
    name = netns()

    def put(table: str, actor: str) -> Any:
        actor = "record('packets'" if actor == COUNTED else f"{actor}("
        text = POLICY.format(table=table, actor=actor).replace("()", ")")
        return emptcp("apply", write(text, f"{table}.toml"), "--netns", name)

    return put


@pytest.fixture
def lose(stranger: Callable[..., Path], emptcp: Any) -> Lose:
    """Return what takes the plugin away that was enabled, in one of three ways."""
    folder = stranger()
    assert emptcp("plugins", "enable", "mark").code == 0

    def gone(how: str) -> None:
        if how == "disabled":
            state.disable("mark")
        elif how == "changed":
            Path(folder, "__init__.py").write_text("# another release\n")
        else:
            shutil.rmtree(folder)
            shutil.rmtree(folder.with_name("strangers_mark-1.0.dist-info"))

    return gone


def in_force() -> dict[str, list[str]]:
    return {name: sorted({one.description.hook for one in found}) for name, found in _tables().items()}


def _tables() -> dict[str, list[running.Running]]:
    return running.tables(running.everything())


@pytest.mark.parametrize("how", WAYS)
def test_a_table_of_a_plugin_that_is_gone_is_removed_with_a_warning(
    apply: Apply, lose: Lose, emptcp: Any, how: str
) -> None:
    assert apply("t", MARKED).code == 0
    lose(how)
    listed = json.loads(emptcp("plugins", "list", "--json").out)["plugins"]
    (mark,) = (one for one in listed if one["name"] == "mark")
    assert mark["state"] == {"uninstalled": "orphaned"}.get(how, how)
    assert "'t's'" in mark["reason"]
    done = emptcp("remove", "t")
    assert (done.code, in_force(), tables.names()) == (0, {}, [])
    assert done.err.count("warning: ") == 1
    assert "plugin 'mark' is not told that stage 'mark' of policy 't's' ended" in done.err
    assert WAYS[how] in done.err


@pytest.mark.parametrize("how", WAYS)
def test_beside_such_a_table_others_are_refused_by_name_until_it_is_removed(
    apply: Apply, lose: Lose, emptcp: Any, how: str
) -> None:
    assert apply("broken", MARKED).code == 0
    assert apply("sound", COUNTED).code == 0
    lose(how)
    done = apply("third", COUNTED)
    assert done.code == 1
    assert "table 'third' can't be changed: policy 'broken's' of table 'broken' shares" in done.err
    assert WAYS[how] in done.err
    assert "Or: emptcp remove broken" in done.err
    assert emptcp("remove", "broken").code == 0
    assert set(in_force()) == {"sound"}
    assert apply("third", COUNTED).code == 0


def test_a_plugin_that_is_enabled_again_hears_of_the_removal(
    apply: Apply, stranger: Callable[..., Path], emptcp: Any
) -> None:
    folder = stranger(plugin='module = "strangers_mark.hooks"')
    heard = folder.parent / "heard"
    Path(folder, "hooks.py").write_text(HOOKS.format(heard=heard))
    assert emptcp("plugins", "enable", "mark").code == 0
    assert apply("t", MARKED).code == 0
    state.disable("mark")
    assert not heard.exists()
    assert emptcp("plugins", "enable", "mark").code == 0
    done = emptcp("remove", "t")
    assert (done.code, done.err) == (0, "")
    assert heard.read_text() == "mark"


def test_the_last_sound_table_beside_a_broken_one_goes_by_force_and_the_broken_one_comes_back(
    apply: Apply, lose: Lose, emptcp: Any
) -> None:
    for table, actor in (("one", MARKED), ("two", MARKED), ("sound", COUNTED)):
        assert apply(table, actor).code == 0
    lose("disabled")
    before = in_force()
    for table in ("one", "two", "sound"):
        done = emptcp("remove", table)
        assert (done.code, in_force()) == (1, before)
        assert f"Or: emptcp remove {table} --force, which takes " in done.err
        assert len(done.err.splitlines()) == 2
    done = emptcp("remove", "one", "--force")
    assert done.code == 0
    assert "policy 'two's' of table 'two' is out of force too" in done.err
    assert set(in_force()) == {"sound"}
    assert tables.names() == ["sound", "two"]
    told = emptcp("doctor")
    assert "table two can't be read any more: actor 'mark' comes from plugin 'mark'" in told.out
    assert "Run: emptcp plugins enable mark" in told.out
    assert emptcp("plugins", "enable", "mark").code == 0
    assert emptcp("doctor", "--repair").code == 0
    assert set(in_force()) == {"sound", "two"}


def test_of_a_policy_only_the_stages_without_a_plugin_are_left_untold(
    apply: Apply, lose: Lose, emptcp: Any
) -> None:
    assert apply("t", "record('packets')\", \"mark").code == 0
    lose("disabled")
    done = emptcp("remove", "t")
    assert done.code == 0
    assert "stage 'mark'" in done.err
    assert "stage 'record'" not in done.err


@pytest.mark.parametrize("table", ["a", "b"])
def test_one_of_two_tables_can_be_removed_when_their_device_is_gone(
    apply: Apply, emptcp: Any, table: str
) -> None:
    for name in ("a", "b"):
        assert apply(name, COUNTED).code == 0
    (found,) = {one.description.netns for one in running.everything().values()}
    subprocess.run(["ip", "-n", found, "link", "delete", "left0"], check=True, timeout=10)
    done = emptcp("remove", table)
    assert (done.code, done.err) == (0, "")
    assert tables.names() == [{"a": "b", "b": "a"}[table]]
