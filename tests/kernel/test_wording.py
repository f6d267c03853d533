# SPDX-License-Identifier: Apache-2.0
"""`emptcp list` says a stage in its plugin's words, and goes on without them when the plugin can't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["record('packets')", "mark(7)"]
"""
HOOKS = """
from emptcp.api import hookimpl

@hookimpl
def emptcp_format(stage):
    if stage.type.name == "mark":
        {says}
"""


@pytest.fixture
def listed(
    netns: Callable[[], str], emptcp: Any, write: Callable[..., str], stranger: Callable[..., Path]
) -> Callable[[str], Any]:
    """Return what applies the policy with a plugin that formats as given, and lists it."""

    def run(says: str) -> Any:
        folder = stranger(plugin='module = "strangers_mark.hooks"')
        Path(folder, "hooks.py").write_text(HOOKS.format(says=says))
        assert emptcp("plugins", "enable", "mark").code == 0
        assert emptcp("apply", write(POLICY), "--netns", netns()).code == 0
        return emptcp("list")

    return run


def test_a_stage_is_said_in_its_plugins_words_with_the_name_to_tune_it_by(
    listed: Callable[[str], Any], emptcp: Any
) -> None:
    said = listed("return f'look for number {stage.values[\"number\"]}\\x1b\\nand more'")
    (line,) = (line for line in said.out.splitlines() if "look for number 7 " in line)
    assert line.endswith(" [mark]")
    assert "\x1b" not in said.out
    assert "and more" not in said.out
    assert "record(what=[packets])" in said.out
    assert said.err == ""
    (program,) = json.loads(emptcp("list", "--json").out)["tables"][0]["programs"]
    assert [stage["text"] for stage in program["policies"][0]["stages"]][-1] == "mark(number=7)"
    state.disable("mark")
    assert "mark(number=7)" in emptcp("list").out


@pytest.mark.parametrize("says", ["return None", "return 7", "return ' '"])
def test_a_plugin_without_words_leaves_the_text(listed: Callable[[str], Any], says: str) -> None:
    said = listed(says)
    assert "mark(number=7)" in said.out
    assert said.err == ""


def test_a_plugin_that_raises_is_a_warning_and_leaves_the_text(listed: Callable[[str], Any]) -> None:
    said = listed("raise RuntimeError('out of words')")
    assert said.code == 0
    assert "mark(number=7)" in said.out
    assert said.err == "warning: plugin 'mark' failed in emptcp_format (RuntimeError: out of words)\n"
