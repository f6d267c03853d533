# SPDX-License-Identifier: Apache-2.0
"""`emptcp diff FILE`: show how a file and what runs differ."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.tables import Entry


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "diff",
        help="show how a file and what runs differ",
        description="Shows how a file's table and the running one differ. Exits with 1 when they do.",
    )
    parser.add_argument("file", metavar="FILE", help="the policy file (TOML)")
    parser.add_argument("--netns", default="", metavar="NAME", help="namespace of policies that name none")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import apply, tables
    from emptcp.cli.outcome import print_outcome
    from emptcp.policy import file, text

    table = apply.as_applied(file.load(arguments.file))
    entry = tables.read(table.name)
    outcome = apply.apply(table, arguments.netns, dry_run=True)
    if not arguments.json:
        running = _running(entry).splitlines() if entry is not None else []
        wanted = text.table_text(table).splitlines()
        for line in difflib.unified_diff(running, wanted, "running", arguments.file, lineterm=""):
            print(line)
    print_outcome(outcome, as_json=arguments.json)
    same = entry is not None and entry.text == text.table_text(table)
    return int(outcome.changed or not same)


def _running(entry: Entry) -> str:
    """Return a running table's text, with the entries that it lists as they are now."""
    from emptcp.chain import contents
    from emptcp.chain.session import recorded
    from emptcp.policy import text

    return text.table_text(contents.as_listed(recorded(entry)))
