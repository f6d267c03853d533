# SPDX-License-Identifier: Apache-2.0
"""`emptcp list` tells under a stage what its plugin notes of it, also a stranger's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
from emptcp.api import hookimpl

@hookimpl
def emptcp_notes(changes):
    if changes[0].stage.type.name != "mark":
        return []
    {says}
"""
PLACES = """places = sorted(name for one in changes for name in one.devices)
    return ['on ' + ' '.join(places), 'two\\x1b\\nlines', '']"""


@pytest.fixture
def noting(
    netns: Callable[[], str], emptcp: Any, write: Callable[..., str], stranger: Callable[..., Path]
) -> Callable[[str], None]:
    """Return what applies the policy with a plugin that notes as given."""

    def run(says: str) -> None:
        folder = stranger(plugin='module = "strangers_mark.hooks"')
        Path(folder, "hooks.py").write_text(HOOKS.format(says=says))
        assert emptcp("plugins", "enable", "mark").code == 0
        assert emptcp("apply", write(POLICY), "--netns", netns()).code == 0

    return run


def test_lines_stand_under_the_stage_in_each_of_its_places(
    noting: Callable[[str], None], emptcp: Any
) -> None:
    noting(PLACES)
    said = emptcp("list")
    assert said.err == ""
    lines = said.out.splitlines()
    stages = [place for place, line in enumerate(lines) if "mark(number=7)" in line]
    assert len(stages) == 2
    for place in stages:
        assert [line.strip() for line in lines[place + 1 : place + 4]] == ["on left0 right0", "two", "}"]
    for program in json.loads(emptcp("list", "--json").out)["tables"][0]["programs"]:
        notes = [stage["notes"] for stage in program["policies"][0]["stages"]]
        assert notes == [[], ["on left0 right0", "two"]]


def test_a_policy_that_is_off_has_none(noting: Callable[[str], None], emptcp: Any) -> None:
    noting(PLACES)
    assert emptcp("off", "t", "p").code == 0
    assert "on left0" not in emptcp("list").out
    assert emptcp("on", "t", "p").code == 0
    assert "on left0" in emptcp("list").out


def test_a_plugin_that_raises_is_a_warning(noting: Callable[[str], None], emptcp: Any) -> None:
    noting("raise RuntimeError('lost the notebook')")
    said = emptcp("list")
    assert said.code == 0
    assert "mark(number=7)" in said.out
    assert "warning: plugin 'mark' failed in emptcp_notes (RuntimeError: lost the notebook)\n" in said.err
