# SPDX-License-Identifier: Apache-2.0
"""`emptcp rollback [N]`: take the last changes of tables back."""

from __future__ import annotations

import argparse
from typing import Any


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "rollback",
        help="take the last changes of tables back",
        description="Makes tables what they were before the last changes: of apply, remove, tune and chain.",
    )
    parser.add_argument("count", metavar="N", nargs="?", type=int, default=1, help="how many changes (1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply
    from emptcp.cli.outcome import print_outcomes

    print_outcomes(apply.rollback(arguments.count), as_json=arguments.json)
    return 0
