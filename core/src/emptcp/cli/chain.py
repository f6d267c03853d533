# SPDX-License-Identifier: Apache-2.0
"""`emptcp chain insert|replace|remove`: change the stages of a running policy or named chain."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.policy.model import Table

_STAGE = "the stage by label, name, or number from 1 as `emptcp list` prints it"


def register(groups: Any) -> None:
    """Add the command group to the parser's subcommands."""
    parser = groups.add_parser("chain", help="insert, replace or remove a stage of a running policy")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    insert = _command(
        commands, "insert", "put a selector or an actor into a running policy or chain", _insert
    )
    insert.add_argument(
        "stage", metavar="STAGE", help='an actor: "record(\'rtt\')"; or selectors: "and not sample(n=2)"'
    )
    where = insert.add_mutually_exclusive_group()
    where.add_argument("--at", type=int, default=0, metavar="N", help="place among the actors, from 1")
    where.add_argument("--before", default="", metavar="STAGE", help=f"before {_STAGE}")
    where.add_argument("--after", default="", metavar="STAGE", help=f"after {_STAGE}")
    replace = _command(commands, "replace", "put another stage in the place of one", _replace)
    replace.add_argument("stage", metavar="STAGE", help=_STAGE)
    replace.add_argument("by", metavar="BY", help="a selector for a selector, an actor for an actor")
    remove = _command(commands, "remove", "take a selector or an actor out", _remove)
    remove.add_argument("stage", metavar="STAGE", help=_STAGE)


def _command(commands: Any, name: str, text: str, edit: Callable[..., Any]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text.capitalize()}."
    )
    parser.add_argument("home", metavar="POLICY", help="POLICY or TABLE/POLICY; @CHAIN or TABLE/@CHAIN")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run, edit=edit)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply, edits
    from emptcp.cli.outcome import print_outcome

    table, home = edits.locate(arguments.home)
    outcome = apply.edit(table, arguments.edit(home, arguments), dry_run=arguments.dry_run)
    print_outcome(outcome, as_json=arguments.json)
    return 0


def _insert(home: str, arguments: argparse.Namespace) -> Callable[[Table], Table]:
    from emptcp.chain import edits

    return edits.insert(home, arguments.stage, arguments.at, arguments.before, arguments.after)


def _replace(home: str, arguments: argparse.Namespace) -> Callable[[Table], Table]:
    from emptcp.chain import edits

    return edits.replace_stage(home, arguments.stage, arguments.by)


def _remove(home: str, arguments: argparse.Namespace) -> Callable[[Table], Table]:
    from emptcp.chain import edits

    return edits.take_out(home, arguments.stage)
