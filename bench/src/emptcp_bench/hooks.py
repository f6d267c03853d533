# SPDX-License-Identifier: Apache-2.0
"""The command ``emptcp bench``."""

from __future__ import annotations

import argparse
import json
import os

from emptcp.api import EmptcpError, hookimpl

ROUNDS, REPEAT = 9, 20_000
QUICK_ROUNDS, QUICK_REPEAT = 1, 200


@hookimpl
def emptcp_commands(name: str, parser: argparse.ArgumentParser) -> None:
    """Fill in the parser of ``emptcp bench``."""
    groups = parser.add_subparsers(metavar="WHAT", required=True)
    text = "nanoseconds per packet: joined chains against hand-written programs"
    chain = groups.add_parser("chain", help=text, description=f"Measure {text}.")
    chain.add_argument("--json", action="store_true", help="print JSON")
    chain.add_argument("--quick", action="store_true", help="a few packets: whether it works, not how fast")
    chain.add_argument("--rounds", type=_count, help=f"rounds of measurement (default: {ROUNDS})")
    chain.add_argument("--repeat", type=_count, help=f"packets per program and round (default: {REPEAT})")
    chain.set_defaults(run=_chain)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError("write a number from 1 to 10000000")
    return number


def _chain(arguments: argparse.Namespace) -> int:
    from emptcp_bench import chain, report

    if os.geteuid() != 0:
        raise EmptcpError(
            "emptcp bench loads programs into the kernel, which takes root", fix="Run it with sudo."
        )
    rounds, repeat = (QUICK_ROUNDS, QUICK_REPEAT) if arguments.quick else (ROUNDS, REPEAT)
    results = chain.measure(arguments.rounds or rounds, arguments.repeat or repeat)
    if arguments.json:
        print(json.dumps(report.as_json(results), indent=2))
    else:
        print(report.as_text(results))
    return 0
