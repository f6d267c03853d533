# SPDX-License-Identifier: Apache-2.0
"""What a policy file requires, against what is installed and enabled."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from emptcp.cli.main import main
from emptcp.errors import EmptcpError
from emptcp.plugins import requirements, state
from emptcp.policy import file
from emptcp.policy.requirement import parse


@pytest.mark.parametrize(
    "text", ["someones-cap", "someones_cap>=1", "Someones.Cap==1.0", "someones-cap~=1.0,!=1.1", "emptcp"]
)
def test_what_is_installed_and_enabled_meets_it(site: Any, text: str) -> None:
    site.add()
    state.enable("cap")
    requirements.check([parse(text)])


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ("someones-cup", "requires someones-cup, which is not installed", "pip install 'someones-cup'"),
        (
            "someones-cap>=2",
            "requires someones-cap>=2, and 1.0 is installed",
            "pip install 'someones-cap>=2'",
        ),
        ("someones-cap", "its plugin 'cap' is found", "emptcp plugins enable cap"),
        ("emptcp<0.1", f"and {version('emptcp')} is installed", "pip install 'emptcp<0.1'"),
        ("someones-cap>=nothing", "are no versions", "Write it as in"),
    ],
)
def test_what_is_missing_is_told_with_place_and_fix(site: Any, text: str, said: str, fix: str) -> None:
    site.add()
    table = file.loads(f'table = "t"\nrequires = ["{text}"]\n', "home.toml")
    with pytest.raises(EmptcpError, match=said) as caught:
        requirements.check(table.requires)
    assert fix in caught.value.fix
    assert caught.value.where == "home.toml:2:13"


@pytest.mark.parametrize(
    "text", ["", ">=1", "a b", "a[extra]", "a; python_version > '3'", "a @ file:///x", "a>="]
)
def test_what_pip_alone_understands_is_no_requirement(text: str) -> None:
    with pytest.raises(EmptcpError, match="is no requirement") as caught:
        file.loads(f'table = "t"\nrequires = ["emptcp", "{text}"]\n')
    assert caught.value.where == "line 2, column 23"


def test_the_list_can_be_given_to_pip_and_to_a_policy_file(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add()
    state.enable("cap")
    assert main(["plugins", "list", "--requirements"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"emptcp=={version('emptcp')}"
    assert "someones-cap==1.0" in lines
    assert lines[1:] == sorted(lines[1:])
    requirements.check(map(parse, lines))
