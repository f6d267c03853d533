# SPDX-License-Identifier: Apache-2.0
"""`emptcp run [FILE..]`: stay resident, for files, controllers, plugins, and devices that come and go."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.control.duty import Duty
    from emptcp.control.files import Files
    from emptcp.control.notify import ServiceManager
    from emptcp.control.runtime import Runtime


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "run",
        help="stay resident: keep files in force, for plugins that need a process",
        description="Applies policy files, and again when they change or on SIGHUP; a file that is wrong is "
        "told of, and what is in force stays. Runs the controllers of tables, hands the events of running "
        "policies to their plugins, puts policies on devices that appear, and switches off policies that "
        "hurt connections. Policies run without it, also those that controllers have set something for. "
        "Ends on SIGTERM or Ctrl-C; all policies stay in force.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="policy files, or folders of which all *.toml are meant"
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="namespace of policies that name none")
    parser.add_argument(
        "--remove", action="store_true", help="at the end, take the files' tables out of force"
    )
    parser.add_argument("--no-guard", action="store_true", help="switch no policy off that hurts connections")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain.instance import Instance
    from emptcp.chain.pins import make_run_folder
    from emptcp.control.closed import Keeper
    from emptcp.control.duty import Duty
    from emptcp.control.files import Files
    from emptcp.control.guard import Guard
    from emptcp.control.notify import STOPPING, ServiceManager
    from emptcp.control.resident import Resident, StopSignals
    from emptcp.control.runtime import Runtime
    from emptcp.control.upkeep import Upkeep

    _check(arguments)
    folder, manager = make_run_folder(), ServiceManager()
    guards = not arguments.no_guard
    files = Files(arguments.files, arguments.netns, _say, _report) if arguments.files else None
    with ExitStack() as opened:
        opened.enter_context(Instance(folder, guards=guards))
        stop, runtime = opened.enter_context(StopSignals()), opened.enter_context(Runtime(_say))
        keeper = opened.enter_context(closing(Keeper()))
        upkeep = opened.enter_context(closing(Upkeep()))
        duty = Duty(_say, _report, Guard() if guards else None, runtime, keeper, files, manager, upkeep)
        Resident(duty, folder).run(stop, lambda: _begin(duty, runtime, manager))
        manager.tell(STOPPING)
    _end(files if arguments.remove else None)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.remove and not arguments.files:
        raise EmptcpError(
            "--remove takes the tables of files out of force, and none is given", fix="Name the files."
        )


def _begin(duty: Duty, runtime: Runtime, manager: ServiceManager) -> None:
    from emptcp.control.notify import READY

    duty.begin()
    runtime.start()
    _say("ready")
    manager.tell(READY)


def _end(files: Files | None) -> None:
    """Take the tables of files out of force, if that is asked for."""
    from emptcp.chain import apply, tables

    for table in files.tables if files is not None else ():
        if table in tables.names():  # somebody may have removed it meanwhile
            _report(apply.remove(table))
    _say("stopped; all policies stay in force" if files is None else "stopped; the files' tables are removed")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(outcome: Any) -> None:
    from emptcp.cli.outcome import print_outcome

    print_outcome(outcome, as_json=False)
    sys.stdout.flush()
