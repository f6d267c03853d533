# SPDX-License-Identifier: Apache-2.0
"""`emptcp plugins disable` while policies use the plugin: refused, or they are taken out of force first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running, tables
from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

MARK, RECORD = 'do = ["mark()"]', "do = [\"record('packets')\"]"
HOOKS = """
from pathlib import Path
from emptcp.api import hookimpl

@hookimpl
def emptcp_removed(change):
    with open("{heard}", "a") as file:
        file.write(change.policy.name + " ")
"""


def table(name: str, *bodies: str) -> str:
    policies = [
        f'[[policy]]\nname = "p{number}"\nhook = "ingress"\ndev = "left0"\n{body}\n'
        for number, body in enumerate(bodies)
    ]
    return f'table = "{name}"\n' + "".join(policies)


@pytest.fixture
def put(netns: Callable[[], str], emptcp: Any, write: Callable[..., str]) -> Callable[[str], None]:
    """Return what puts a policy file's text in force on left0 of one namespace."""
    name = netns()

    def apply(text: str) -> None:
        assert emptcp("apply", write(text), "--netns", name).code == 0

    return apply


@pytest.fixture
def package(stranger: Callable[..., Path], emptcp: Any) -> Path:
    """A third party's plugin `mark`, enabled, that writes down whose end it hears of."""
    folder = stranger(plugin='module = "strangers_mark.hooks"')
    Path(folder, "hooks.py").write_text(HOOKS.format(heard=folder.parent / "heard"))
    assert emptcp("plugins", "enable", "mark").code == 0
    return folder


def in_force() -> dict[str, list[str]]:
    found = running.tables(running.everything())
    return {
        name: sorted({one.name for program in programs for one in program.description.policies})
        for name, programs in found.items()
    }


def test_it_is_refused_naming_the_policies_and_nothing_changes(package: Path, put: Any, emptcp: Any) -> None:
    put(table("home", MARK, RECORD))
    said = emptcp("plugins", "disable", "mark")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "emptcp: plugin 'mark' is used by policy 'home/p0'\n"
        "Run: emptcp plugins disable mark --force, which takes them out of force first.\n"
    )
    assert in_force() == {"home": ["p0", "p1"]}
    assert state.one(state.judged(), "mark").usable


def test_by_force_its_policies_go_first_and_others_stay(package: Path, put: Any, emptcp: Any) -> None:
    put(table("alone", MARK, MARK))
    put(table("both", RECORD, MARK))
    said = emptcp("plugins", "disable", "mark", "--force")
    assert (said.code, said.err) == (0, "")
    assert "removed alone/p0, alone/p1, both/p1" in said.out
    assert said.out.endswith("disabled strangers-mark:mark; no policy can be applied with it from now on\n")
    assert (in_force(), tables.names()) == ({"both": ["p0"]}, ["both"])
    heard = Path(package.parent, "heard").read_text().split()
    assert sorted(heard) == ["p0", "p1", "p1"], "the plugin took back what its actors did"


def test_a_policy_uses_what_is_in_the_chains_that_it_comes_to(package: Path, put: Any, emptcp: Any) -> None:
    chains = f"[chain.marking]\n{MARK}\n[chain.counting]\n{RECORD}\n"
    put(table("home", 'do = ["goto marking"]', 'do = ["goto counting"]') + chains)
    assert "used by policy 'home/p0'\n" in emptcp("plugins", "disable", "mark").err
    assert emptcp("plugins", "disable", "mark", "--force").code == 0
    assert in_force() == {"home": ["p1"]}


def test_by_force_a_plugin_that_changed_goes_too(package: Path, put: Any, emptcp: Any) -> None:
    put(table("home", MARK, RECORD, MARK))
    Path(package, "__init__.py").write_text("# another release\n")
    assert emptcp("plugins", "disable", "mark").code == 1
    assert emptcp("plugins", "disable", "mark", "--force").code == 0
    assert in_force() == {"home": ["p1"]}
    assert state.one(state.judged(), "mark").state == "disabled"


def test_what_nobody_uses_is_disabled_at_once(package: Path, put: Any, emptcp: Any) -> None:
    put(table("home", RECORD))
    assert emptcp("plugins", "disable", "mark").code == 0
    assert in_force() == {"home": ["p0"]}
