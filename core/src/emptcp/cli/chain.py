# SPDX-License-Identifier: Apache-2.0
"""`emptcp chain insert|remove`: change the actors of a running policy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.policy.model import Table


def register(groups: Any) -> None:
    """Add the command group to the parser's subcommands."""
    parser = groups.add_parser("chain", help="insert or remove an actor of a running policy")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    insert = commands.add_parser("insert", help="put an actor into a running chain")
    insert.add_argument("policy", metavar="POLICY", help="the policy, or TABLE/POLICY")
    insert.add_argument("actor", metavar="ACTOR", help="as a policy file says it: \"record('rtt')\"")
    insert.add_argument(
        "--at", type=int, default=0, metavar="N", help="its place from 1; the end if left out"
    )
    insert.set_defaults(edit=_insert)
    remove = commands.add_parser("remove", help="take an actor out of a running chain")
    remove.add_argument("policy", metavar="POLICY", help="the policy, or TABLE/POLICY")
    remove.add_argument("stage", metavar="STAGE", help="the actor by label, name or place from 1")
    remove.set_defaults(edit=_remove)
    for command in (insert, remove):
        command.add_argument(
            "--dry-run", action="store_true", help="print what would be done, and do nothing"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply, edits
    from emptcp.cli.outcome import print_outcome

    table, policy = edits.locate(arguments.policy)
    outcome = apply.edit(table, arguments.edit(policy, arguments), dry_run=arguments.dry_run)
    print_outcome(outcome, as_json=arguments.json)
    return 0


def _insert(policy: str, arguments: argparse.Namespace) -> Callable[[Table], Table]:
    from emptcp.chain import edits

    return edits.insert(policy, arguments.actor, arguments.at)


def _remove(policy: str, arguments: argparse.Namespace) -> Callable[[Table], Table]:
    from emptcp.chain import edits

    return edits.take_out(policy, arguments.stage)
