# SPDX-License-Identifier: Apache-2.0
"""The command ``emptcp bench``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from emptcp.api import EmptcpError, hookimpl

if TYPE_CHECKING:
    from emptcp_bench.answer import Answer

ROUNDS, REPEAT = 31, 20_000
QUICK_ROUNDS, QUICK_REPEAT = 1, 200
STEER_ROUNDS, STEER_SECONDS = 61, 0.1
ACCURACY_ROUNDS = 3
CONNECTIONS, SECONDS = 1000, 60.0
QUICK_CONNECTIONS, QUICK_SECONDS = 20, 2.0

ANSWERING = {
    "ops": ("nanoseconds per packet of each selector and actor alone", 15),
    "bystander": ("nanoseconds per packet that no policy wants", 31),
    "control": ("how long changes take, by emptcp and by others", 9),
    "tables": ("nanoseconds per packet, by how many flows are in a set", 15),
    "flows": ("share of the time that 100 to 10,000 real flows transmit", 7),
    "granularity": ("share of the time that real flows transmit, by what is selected", 7),
    "throughput": ("nanoseconds that chains add to packets of fast transfers", 7),
    "cpu": ("processor time that a chain takes of a transfer, on and off in turns", 15),
    "early-drop": ("what it takes to stop a flood of MP_JOIN SYNs, by where it is stopped", 9),
    "events": ("events a second that reach Python, none lost", 9),
    "verifier": ("what the verifier visits, and how long loading takes", 9),
}
"""Benchmarks that give an :class:`~emptcp_bench.answer.Answer`: what they measure, and in how many rounds."""


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
    text = "throughput of a guest's stream: steered, with merged packets, against unsteered"
    steer = groups.add_parser("steer", help=text, description=f"Measure {text}.")
    steer.add_argument("--json", action="store_true", help="print JSON")
    steer.add_argument("--quick", action="store_true", help="one short round: whether it works, not how fast")
    steer.add_argument("--rounds", type=_count, help=f"rounds of measurement (default: {STEER_ROUNDS})")
    steer.set_defaults(run=_steer)
    text = "what actors were asked for against what they brought about, on live connections"
    accuracy = groups.add_parser("accuracy", help=text, description=f"Measure {text}.")
    accuracy.add_argument("--json", action="store_true", help="print JSON")
    accuracy.add_argument("--quick", action="store_true", help="one rate, once: whether it works")
    accuracy.add_argument("--rounds", type=_count, help=f"rounds of measurement (default: {ACCURACY_ROUNDS})")
    accuracy.add_argument(
        "--page", metavar="FILE", help="measure nothing; print the documentation's page for such a JSON"
    )
    accuracy.set_defaults(run=_accuracy)
    text = "the ticks of a controller with many connections, on one core"
    controllers = groups.add_parser("controllers", help=text, description=f"Measure {text}.")
    controllers.add_argument("--json", action="store_true", help="print JSON")
    controllers.add_argument("--quick", action="store_true", help="a few connections: whether it works")
    controllers.add_argument("--connections", type=_count, help=f"of two subflows (default: {CONNECTIONS})")
    controllers.add_argument("--seconds", type=_count, help=f"of measurement (default: {SECONDS:g})")
    controllers.set_defaults(run=_controllers)
    for benchmark, (text, rounds) in ANSWERING.items():
        one = groups.add_parser(benchmark, help=text, description=f"Measure {text}.")
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument("--quick", action="store_true", help="as little as can be: whether it works")
        one.add_argument("--rounds", type=_count, help=f"rounds of measurement (default: {rounds})")
        one.set_defaults(run=_answer, benchmark=benchmark)
    text = "measure nothing; print the documentation's page for a folder of answers, and draw its pictures"
    page = groups.add_parser("page", help=text, description=text.capitalize() + ".")
    page.add_argument("folder", metavar="FOLDER", type=Path, help="with chain.json, ops.json and so on")
    page.set_defaults(run=_page)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError("write a number from 1 to 10000000")
    return number


def _chain(arguments: argparse.Namespace) -> int:
    from emptcp_bench import chain, report

    _need_root()
    rounds, repeat = (QUICK_ROUNDS, QUICK_REPEAT) if arguments.quick else (ROUNDS, REPEAT)
    results = chain.measure(arguments.rounds or rounds, arguments.repeat or repeat)
    _print(arguments, results, report)
    return 0


def _steer(arguments: argparse.Namespace) -> int:
    from emptcp_bench import steer, steer_report

    _need_root()
    rounds, seconds = (1, STEER_SECONDS) if arguments.quick else (STEER_ROUNDS, STEER_SECONDS)
    results = steer.measure(arguments.rounds or rounds, seconds)
    _print(arguments, results, steer_report)
    return 0


def _accuracy(arguments: argparse.Namespace) -> int:
    from emptcp_bench.accuracy import measure, report

    if arguments.page:
        print(report.as_page(json.loads(Path(arguments.page).read_text(encoding="utf-8"))), end="")
        return 0
    _need_root()
    rounds = arguments.rounds or (1 if arguments.quick else ACCURACY_ROUNDS)
    rows = measure(rounds, lambda line: print(line, file=sys.stderr, flush=True), quick=arguments.quick)
    if arguments.json:
        print(json.dumps(report.as_json(rows, rounds), indent=2))
    else:
        print(report.as_text(rows))
    return int(not all(row.held for row in rows))


def _controllers(arguments: argparse.Namespace) -> int:
    from emptcp_bench import controllers, controllers_report

    _need_root()
    number, seconds = (QUICK_CONNECTIONS, QUICK_SECONDS) if arguments.quick else (CONNECTIONS, SECONDS)
    found = controllers.measure(arguments.connections or number, arguments.seconds or seconds)
    _print(arguments, found, controllers_report)
    return 0


def _answer(arguments: argparse.Namespace) -> int:
    _need_root()
    rounds = 1 if arguments.quick else ANSWERING[arguments.benchmark][1]
    module = import_module(f"emptcp_bench.{arguments.benchmark.replace('-', '_')}")
    found: Answer = module.measure(arguments.rounds or rounds, arguments.quick)
    print(json.dumps(found.as_json(), indent=2) if arguments.json else found.as_text())
    return 0


def _page(arguments: argparse.Namespace) -> int:
    from emptcp_bench import page, pictures

    answers = page.read(arguments.folder)
    pictures.draw(answers, arguments.folder)
    print(page.as_page(answers), end="")
    return 0


def _print(arguments: argparse.Namespace, results: Any, report: ModuleType) -> None:
    print(json.dumps(report.as_json(results), indent=2) if arguments.json else report.as_text(results))


def _need_root() -> None:
    if os.geteuid() != 0:
        raise EmptcpError(
            "emptcp bench loads programs into the kernel, which takes root", fix="Run it with sudo."
        )
