# SPDX-License-Identifier: Apache-2.0
"""`emptcp confirm`: keep a change that was applied with ``--confirm``."""

from __future__ import annotations

import argparse
from typing import Any


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "confirm",
        help="keep a change that was applied on probation",
        description="Keeps the change that `emptcp apply --confirm` made; without it, that is rolled back.",
    )
    parser.set_defaults(run=_run)


def _run(_arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply

    print(f"table {apply.confirm().table} stays as it is")
    return 0
