# SPDX-License-Identifier: Apache-2.0
"""The hook `emptcp_sockets`: stages look at subflows after each change, and while `emptcp run` runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import apply
from emptcp.control.upkeep import Upkeep
from emptcp.lab.resident import resident
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
[[policy]]
name = "p"
hook = "ingress"
dev = ["left0", "right0"]
do = ["record('packets')", "mark(7)"]
"""
HOOKS = """
import json
from emptcp.api import hookimpl

@hookimpl
def emptcp_sockets(changes, reader):
    if changes[0].stage.type.name == "mark":
        places = sorted(name for one in changes for name in one.devices)
        numbers = sorted({{one.number for one in changes}})
        found = reader.read(changes[0].namespace)
        with open({notebook!r}, "a") as notebook:
            notebook.write(json.dumps([places, numbers, len(found)]) + chr(10))
"""


@pytest.fixture
def notebook(
    netns: Callable[[], str],
    emptcp: Any,
    write: Callable[..., str],
    stranger: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """What a stage of a stranger's noted at each look; the policy is in force."""
    made = tmp_path / "notebook"
    folder = stranger(plugin='module = "strangers_mark.hooks"')
    Path(folder, "hooks.py").write_text(HOOKS.format(notebook=str(made)))
    assert emptcp("plugins", "enable", "mark").code == 0
    assert emptcp("apply", write(POLICY), "--netns", netns()).code == 0
    return made


def looks(notebook: Path) -> list[Any]:
    return [json.loads(line) for line in notebook.read_text().splitlines()]


def test_a_stage_looks_once_after_each_change_with_all_its_places(notebook: Path, emptcp: Any) -> None:
    (first,) = looks(notebook)
    places, numbers, found = first
    assert (places, len(numbers), found) == (["left0", "right0"], 1, 0)
    assert emptcp("tune", "p", "mark", "number=8").code == 0
    assert looks(notebook) == [first] * 2
    assert emptcp("off", "t").code == 0
    assert looks(notebook) == [first] * 2
    assert emptcp("on", "t").code == 0
    assert looks(notebook) == [first] * 3
    assert emptcp("remove", "t").code == 0
    assert looks(notebook) == [first] * 3


def test_it_looks_again_and_again_while_a_process_is_there(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with resident("--no-guard"):
        before = len(looks(notebook))
        wait_until(lambda: len(looks(notebook)) >= before + 3, 60)
    assert len({str(one) for one in looks(notebook)}) == 1


def test_what_looks_stays_loaded_while_the_programs_are_the_same(notebook: Path, emptcp: Any) -> None:
    from emptcp.chain import effects, pins

    tree, catalog, manager = pins.find(), Catalog.of_enabled(), Manager.of_enabled()
    assert tree is not None
    made = []
    plain = effects.of_running
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(effects, "of_running", lambda *args: made.append(1) or plain(*args))
        upkeep, before = Upkeep(), len(looks(notebook))
        for _ in range(3):
            upkeep.look(tree, catalog, manager)
        assert (len(made), len(looks(notebook))) == (1, before + 3)
        assert emptcp("off", "t", "p").code == 0
        made.clear()
        upkeep.look(tree, catalog, manager)
        assert (len(made), len(looks(notebook))) == (1, before + 3)
        upkeep.close()
    apply.remove("t")
