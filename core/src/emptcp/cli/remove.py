# SPDX-License-Identifier: Apache-2.0
"""`emptcp remove TABLE [POLICY]`: take a table, or one policy, out of force."""

from __future__ import annotations

import argparse
from typing import Any


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "remove",
        help="take a table, or one policy, out of force",
        description="Takes a table, or one policy, out of force, and takes back what its actors did.",
    )
    parser.add_argument("table", metavar="TABLE", help="the table's name, as `emptcp list` prints it")
    parser.add_argument("policy", metavar="POLICY", nargs="?", default="", help="only this policy of it")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument("--keep-effects", action="store_true", help="leave what removed actors did as it is")
    parser.add_argument(
        "--force",
        action="store_true",
        help="take policies of other tables out of force too whose plugins are not there any more, "
        "where they are in the way",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply
    from emptcp.cli.outcome import print_outcome

    outcome = apply.remove(
        arguments.table,
        arguments.policy,
        dry_run=arguments.dry_run,
        keep_effects=arguments.keep_effects,
        force=arguments.force,
    )
    print_outcome(outcome, as_json=arguments.json)
    return 0
