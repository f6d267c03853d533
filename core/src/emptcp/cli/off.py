# SPDX-License-Identifier: Apache-2.0
"""`emptcp off|on [TABLE [POLICY]]`: switch everything, a table or a policy off, and on again."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.session import Done
    from emptcp.chain.switches import Switched

SCHEMA = 1

_WORDS = {
    "detach": ("detached", "would detach"),
    "attach": ("attached", "would attach"),
    "off": ("switched off at", "would switch off at"),
    "on": ("switched on at", "would switch on at"),
}


def register(groups: Any) -> None:
    """Add both commands to the parser's subcommands."""
    off = groups.add_parser(
        "off",
        help="switch everything, a table or a policy off",
        description="Without a table: detaches every program at once, and keeps them all. With a table, or "
        "one of its policies: the programs stay attached and skip it. Needs no policy file and no plugin. "
        "Stays so until: emptcp on",
    )
    off.add_argument("--keep-effects", action="store_true", help="leave what actors did as it is")
    off.set_defaults(run=_off)
    on = groups.add_parser(
        "on",
        help="switch everything, a table or a policy on again",
        description="Without a table: attaches every program that `emptcp off` detached. With a table, or "
        "one of its policies: the programs run it again.",
    )
    on.set_defaults(run=_on)
    for parser in (off, on):
        parser.add_argument("table", metavar="TABLE", nargs="?", default="", help="only this table")
        parser.add_argument("policy", metavar="POLICY", nargs="?", default="", help="only this policy of it")
        parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
        parser.add_argument("--json", action="store_true", help="print JSON")


def _off(arguments: argparse.Namespace) -> int:
    from emptcp.chain import switches

    switched = switches.off(
        arguments.table, arguments.policy, dry_run=arguments.dry_run, keep_effects=arguments.keep_effects
    )
    return _print(switched, "off", arguments)


def _on(arguments: argparse.Namespace) -> int:
    from emptcp.chain import switches

    switched = switches.on(arguments.table, arguments.policy, dry_run=arguments.dry_run)
    return _print(switched, "on", arguments)


def _print(switched: Switched, word: str, arguments: argparse.Namespace) -> int:
    """Print what was done to stdout, warnings to stderr; return how the command ends."""
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, **asdict(switched)}))
        return int(switched.failed)
    for done in switched.done:
        if done.action != "keep":
            print(_line(done, switched.dry_run))
    if not switched.changed:
        policy = f"policy {arguments.policy} of " if arguments.policy else ""
        what = f"{policy}table {arguments.table}" if arguments.table else "everything"
        print(f"{what} is {word} already" if switched.done else f"{what} is {word}, and nothing of it runs")
    for warning in switched.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return int(switched.failed)


def _line(done: Done, dry_run: bool) -> str:
    from emptcp.cli.outcome import where

    policies = f"{', '.join(done.policies)} " if done.action in ("off", "on") else ""
    return f"{policies}{_WORDS[done.action][dry_run]} {where(done)}"
