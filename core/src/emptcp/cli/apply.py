# SPDX-License-Identifier: Apache-2.0
"""`emptcp apply FILE`: make a table what a policy file says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from emptcp.cli import guard_window

if TYPE_CHECKING:
    from emptcp.policy.model import Table


LONGEST = 86400
"""Seconds of the longest probation."""


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "apply",
        help="make a table what a policy file says",
        description="Makes the file's table what the file says, and touches no other. "
        "Applying twice changes nothing.",
    )
    parser.add_argument("file", metavar="FILE", help="the policy file (TOML)")
    parser.add_argument("--netns", default="", metavar="NAME", help="namespace of policies that name none")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument(
        "--confirm",
        type=_seconds,
        metavar="SECONDS",
        help="take the change back after so many seconds, unless `emptcp confirm` comes before",
    )
    parser.add_argument(
        "--guard-window",
        type=guard_window.seconds,
        metavar="SECONDS",
        help="then watch so long, switch policies off that hurt connections, and end with 1 if one did; 0: "
        "do not; else as the file says, or $EMPTCP_GUARD_WINDOW, or 30",
    )
    parser.add_argument(
        "--new-maps",
        action="store_true",
        help="begin with new maps where an upgraded plugin lays them out otherwise; what they hold is lost",
    )
    parser.add_argument("--keep-effects", action="store_true", help="leave what removed actors did as it is")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.policy import file

    table = file.load(arguments.file)
    window = guard_window.of(table, arguments)
    if not window:
        _apply(table, arguments)
        return 0
    return guard_window.watched(table, arguments.netns, window, lambda: _apply(table, arguments))


def _apply(table: Table, arguments: argparse.Namespace) -> None:
    from emptcp.chain import apply
    from emptcp.cli.outcome import print_outcome

    if arguments.confirm is not None and not arguments.dry_run:
        _on_probation(table, arguments)
        return
    outcome = apply.apply(
        table,
        arguments.netns,
        dry_run=arguments.dry_run,
        keep_effects=arguments.keep_effects,
        new_maps=arguments.new_maps,
    )
    print_outcome(outcome, as_json=arguments.json)


def _on_probation(table: Table, arguments: argparse.Namespace) -> None:
    from emptcp.chain import apply
    from emptcp.cli.outcome import print_outcome
    from emptcp.control import probation

    outcome, pending = apply.apply_on_probation(
        table, arguments.netns, arguments.confirm, probation.start, keep_effects=arguments.keep_effects
    )
    print_outcome(outcome, as_json=arguments.json)
    if pending and not arguments.json:
        print(f"taken back in {arguments.confirm:g} s, unless: emptcp confirm")


def _seconds(text: str) -> float:
    """Read how long a change is on probation."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"'{text}' is no time from 1 to {LONGEST} seconds")
    return seconds
