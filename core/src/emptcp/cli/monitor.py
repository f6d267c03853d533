# SPDX-License-Identifier: Apache-2.0
"""`emptcp monitor`: events of connections and plugins as they come."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError, quoted

if TYPE_CHECKING:
    from emptcp.control.monitor import Line

SCHEMA = 1


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "monitor",
        help="print events of connections and plugins as they come",
        description="Prints the kernel's MPTCP events, by the names of `ip mptcp monitor`, and those that "
        "stages of running policies send; LOST tells how many there was no room for. Ends on Ctrl-C.",
    )
    parser.add_argument("--event", action="append", default=[], metavar="NAME", help="only these events")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME",
        help="only those of the kernel, or a plugin",
    )
    parser.add_argument("--token", metavar="TOKEN", help="only those of a connection, as in 0x1a2b3c4d")
    parser.add_argument(
        "--netns", action="append", default=[], metavar="NAME", help="the network namespace, or several"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many")
    parser.add_argument("--keys", action="store_true", help="print keys, which are secrets, too")
    parser.add_argument("--json", action="store_true", help="print a JSON object per line")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain.pins import make_run_folder
    from emptcp.control.duty import owners
    from emptcp.control.monitor import REFRESH, Monitor, matching
    from emptcp.hooks import namespaces
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

    spaces = [namespaces.resolve(name) for name in arguments.netns or [""]]
    wanted = matching(arguments.event, arguments.source, _token(arguments.token))
    left = arguments.count
    show = _json if arguments.json else _text
    manager, known = Manager.of_enabled(), owners(Catalog.of_enabled())
    with Monitor(make_run_folder(), spaces, known, manager, arguments.keys) as monitor:
        while left is None or left > 0:
            for line in filter(wanted, monitor.read(REFRESH)):
                print(show(line), flush=True)
                left = None if left is None else left - 1
                if left == 0:
                    break
    return 0


def _token(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        raise EmptcpError(f"{quoted(text)} is no token", fix="Write it as in 0x1a2b3c4d.") from None


def _text(line: Line) -> str:
    from datetime import datetime

    when = datetime.fromtimestamp(line.time).strftime("%H:%M:%S.%f")
    about = " ".join(f"{name}={_shown(name, value)}" for name, value in line.about.items())
    where = f" netns={line.netns}" if line.netns else ""
    return f"{when} [{line.event:>16}] {line.source}{where} {about}".rstrip()


def _json(line: Line) -> str:
    about = {name: _plain(name, value) for name, value in line.about.items()}
    head = {"schema": SCHEMA, "time": line.time, "event": line.event, "source": line.source}
    return json.dumps(head | {"netns": line.netns} | about)


def _shown(name: str, value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(_plain(name, value))


def _plain(name: str, value: Any) -> Any:
    from emptcp.control.monitor import is_token

    if isinstance(value, int) and is_token(name):
        return f"0x{value:08x}"
    return value if isinstance(value, bool | int | float | str) else str(value)
