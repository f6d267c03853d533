# SPDX-License-Identifier: Apache-2.0
"""Commands that plugins add: listed without their code, run by it, and kept from harming others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emptcp import __file__ as emptcp_package
from emptcp.cli.main import main
from emptcp.plugins import commands, state

FILLS = """
from emptcp.api import EmptcpError, hookimpl

@hookimpl
def emptcp_commands(name, parser):
    parser.add_argument("--many", type=int, default=1)
    parser.set_defaults(run=lambda arguments: print(name, arguments.many))
"""
RUNS = """
from emptcp.api import EmptcpError, hookimpl

def run(arguments):
    {}

@hookimpl
def emptcp_commands(name, parser):
    parser.set_defaults(run=run)
"""
WITH_COMMAND = """
schema = 1
name = "{name}"
module = "{package}.hooks"

[[command]]
name = "{command}"
help = "{help}"
"""

DEAR = {"importlib.metadata", "pluggy", "dataclasses", "pathlib", "cffi", "emptcp.plugins.state"}


def add(
    site: Any, hooks: str = FILLS, *, name: str = "cap", command: str = "caps", text: str = "print the caps"
) -> Path:
    """Install and enable a plugin with one command; return its package's folder."""
    package = f"someones_{name}"
    manifest = WITH_COMMAND.format(name=name, package=package, command=command, help=text)
    root: Path = site.add(name, manifest=manifest, with_object=False)
    Path(root, "hooks.py").write_text(hooks)
    state.enable(name)
    return root


def emptcp(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and errors."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_the_commands_of_enabled_plugins_only(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add(site)
    assert ["caps", "print", "the", "caps"] in [
        line.split() for line in emptcp(capsys, "--help")[1].splitlines()
    ]
    state.disable("cap")
    assert "caps" not in emptcp(capsys, "--help")[1]


def test_help_does_not_name_what_was_never_enabled(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    assert "caps" not in emptcp(capsys, "--help")[1]


def test_the_projects_own_need_no_record_to_be_named(site: Any) -> None:
    site.add(distribution="emptcp-bench", package="someones_bench", name="cap")
    assert commands.listed()["caps"] == "print the caps"


@pytest.mark.parametrize("words", [["--help"], ["cpas"], ["plugins", "list"]])
def test_no_plugin_is_imported_to_list_commands(site: Any, words: list[str]) -> None:
    root = add(site, "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n")
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    ran = subprocess.run(
        [sys.executable, "-m", "emptcp.cli.main", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "caps" in ran.stdout + ran.stderr
    assert not Path(root, "imported").exists()


def test_help_imports_nothing_that_costs(site: Any) -> None:
    add(site)
    script = (
        "import sys\nfrom emptcp.plugins import commands\nassert 'caps' in commands.listed()\n"
        f"print(sorted({DEAR} & sys.modules.keys()))"
    )
    path = os.pathsep.join([str(site.folder), str(Path(emptcp_package).parent.parent)])
    command = [sys.executable, "-S", "-c", script]
    environment = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == "[]\n", ran.stderr


def test_a_plugins_command_takes_its_own_arguments(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site)
    assert emptcp(capsys, "caps", "--many", "3") == (0, "caps 3\n", "")


def test_calling_one_imports_no_other_plugin(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site)
    other = add(site, "raise RuntimeError\n", name="dap", command="daps")
    Path(other, "imported").unlink(missing_ok=True)
    assert emptcp(capsys, "caps")[0] == 0
    assert not Path(other, "imported").exists()


def test_its_own_help_is_the_plugins(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site)
    code, out, _ = emptcp(capsys, "caps", "--help")
    assert (code, "--many" in out) == (0, True)


def test_no_plugin_takes_a_built_in_command_over(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    root = add(site, command="plugins", text="mine now")
    Path(root, "imported").unlink(missing_ok=True)
    assert emptcp(capsys, "plugins", "list", "--json")[1].startswith("{")
    assert "mine now" not in emptcp(capsys, "--help")[1]
    assert not Path(root, "imported").exists()


def test_a_percent_sign_and_escapes_in_its_help_do_no_harm(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add(site, text="100 % of it\\u001b[31m")
    out = emptcp(capsys, "--help")[1]
    assert "100 % of it" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ("raise RuntimeError('no luck')\n", "plugin 'cap' failed in import (RuntimeError: no luck)"),
        (FILLS.replace("    parser.add_argument", "    1 / 0\n    parser.add_argument"),
         "plugin 'cap' failed in emptcp_commands (ZeroDivisionError: division by zero)"),
        (RUNS.format("raise KeyError('a')"), "plugin 'cap' failed in command 'caps' (KeyError: 'a')"),
        (RUNS.format("return 'done'"), "plugin 'cap' failed in command 'caps' (ValueError"),
        ("", "plugin 'cap' failed in command 'caps' (AttributeError"),
    ],
)  # fmt: skip
def test_one_that_raises_is_told_by_name_in_a_sentence(
    site: Any, capsys: pytest.CaptureFixture[str], hooks: str, said: str
) -> None:
    add(site, hooks)
    code, out, err = emptcp(capsys, "caps")
    assert (code, out) == (1, "")
    assert err.startswith(f"emptcp: {said}")
    assert err.endswith("or run: emptcp plugins disable cap\n")
    assert len(err.splitlines()) == 2


def test_its_refusals_are_printed_as_they_are(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site, RUNS.format("raise EmptcpError('there is no cap', fix='Buy one.')"))
    assert emptcp(capsys, "caps") == (1, "", "emptcp: there is no cap\nBuy one.\n")


def test_its_exit_code_is_the_commands(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site, RUNS.format("return 1"))
    assert emptcp(capsys, "caps")[0] == 1


def test_one_that_was_changed_or_disabled_is_refused_with_its_fix(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add(site)
    Path(root, "hooks.py").write_text(FILLS + "# changed\n")
    code, _, err = emptcp(capsys, "caps")
    assert code == 1
    assert "command 'caps' comes from plugin 'cap', which is changed: its files changed" in err
    assert "Run: emptcp plugins enable cap" in err
    state.disable("cap")
    assert "which is disabled" in emptcp(capsys, "caps")[2]


def test_two_that_have_one_command_are_both_named(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site)
    manifest = WITH_COMMAND.format(name="bench", package="someones_bench", command="caps", help="x")
    site.add(
        "bench",
        distribution="emptcp-bench",
        package="someones_bench",
        manifest=manifest,
        with_object=False,
    )
    err = emptcp(capsys, "caps")[2]
    assert "command 'caps' is provided by emptcp-bench:bench and someones-cap:cap" in err


def test_an_unknown_command_is_wrong_usage_and_near_ones_are_offered(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    add(site)
    code, _, err = emptcp(capsys, "capz")
    assert code == 2
    assert "there is no command 'capz'; did you mean 'caps'?" in err


@pytest.mark.parametrize(
    "broken", ["[[command]\n", "command = 3\n", "[[command]]\nhelp = 3\n", "command = [1]\n"]
)
def test_a_broken_manifest_hides_no_other_command(site: Any, broken: str) -> None:
    add(site)
    site.add("bad", distribution="emptcp-bench", package="someones_bad", with_object=False)
    Path(site.folder, "someones_bad", "emptcp.toml").write_text(broken)
    assert commands.listed()["caps"] == "print the caps"


def test_a_broken_state_file_leaves_help_standing(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(site)
    state.file().write_text("[[plugin]]\nname = 3\n")
    code, out, _ = emptcp(capsys, "--help")
    assert (code, "caps" in out) == (0, False)
