# SPDX-License-Identifier: Apache-2.0
"""`emptcp tune POLICY STAGE key=value`, `emptcp tune POLICY when='..'`: change a running policy."""

from __future__ import annotations

import argparse
from typing import Any


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "tune",
        help="change parameters of a running stage, or a policy's `when`",
        description="Changes parameters of a running stage (nothing is reloaded), or a policy's expression.",
    )
    parser.add_argument("home", metavar="POLICY", help="POLICY or TABLE/POLICY; @CHAIN or TABLE/@CHAIN")
    parser.add_argument(
        "change",
        metavar="STAGE key=value | when=EXPRESSION",
        nargs="+",
        help="the stage by label, name or number from 1 as `emptcp list` prints it, then its new values",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply, edits
    from emptcp.cli.outcome import print_outcome

    table, home = edits.locate(arguments.home)
    change = edits.tune(home, arguments.change)
    outcome = apply.edit(table, change, dry_run=arguments.dry_run)
    print_outcome(outcome, as_json=arguments.json)
    return 0
