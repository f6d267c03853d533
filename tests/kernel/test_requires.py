# SPDX-License-Identifier: Apache-2.0
"""`requires` in a policy file: nothing is applied unless it is met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running, tables
from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

FILE = """\
table = "home"
requires = ["emptcp>=0.1", "strangers-mark>={version}"]
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["record('packets')"]
"""


@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--confirm", "60"]], ids=str)
def test_nothing_is_applied_until_it_is_met(
    stranger: Callable[..., Path], netns: Callable[[], str], emptcp: Any, write: Any, how: list[str]
) -> None:
    apply = ("apply", write(FILE.format(version="1.0"), "home.toml"), "--netns", netns(), *how)
    for said, prepare in (
        ("which is not installed\nRun: pip install 'strangers-mark>=1.0'", stranger),
        ("plugin 'mark' is found\nRun: emptcp plugins enable mark", lambda: state.enable("mark")),
    ):
        refused = emptcp(*apply)
        assert refused.code == 1
        assert "home.toml:2:28: the file requires strangers-mark>=1.0" in refused.err
        assert said in refused.err
        assert (running.everything(), tables.names()) == ({}, [])
        prepare()
    assert emptcp(*apply).code == 0
    if "--confirm" in how:
        assert emptcp("confirm").code == 0


def test_another_version_is_refused(
    stranger: Callable[..., Path], netns: Callable[[], str], emptcp: Any, write: Any
) -> None:
    stranger()
    said = emptcp("apply", write(FILE.format(version="2"), "home.toml"), "--netns", netns())
    assert (said.code, "requires strangers-mark>=2, and 1.0 is installed" in said.err) == (1, True)
