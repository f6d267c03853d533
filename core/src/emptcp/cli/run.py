# SPDX-License-Identifier: Apache-2.0
"""`emptcp run`: stay resident, for plugins that need a process and for devices that come and go."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.control.duty import Duty
    from emptcp.control.runtime import Runtime


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "run",
        help="stay resident for plugins that need a process",
        description="Runs the controllers of tables, hands the events of running policies to their plugins, "
        "puts policies on devices that come back, and switches off policies that hurt connections. Policies "
        "run without it, also those that controllers have set something for. "
        "Ends on SIGTERM or Ctrl-C; all policies stay in force.",
    )
    parser.add_argument("--no-guard", action="store_true", help="switch no policy off that hurts connections")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain.instance import Instance
    from emptcp.chain.pins import make_run_folder
    from emptcp.control.closed import Keeper
    from emptcp.control.duty import Duty
    from emptcp.control.guard import Guard
    from emptcp.control.resident import Resident, StopSignals
    from emptcp.control.runtime import Runtime

    folder = make_run_folder()
    guards = not arguments.no_guard
    with ExitStack() as opened:
        opened.enter_context(Instance(folder, guards=guards))
        stop, runtime = opened.enter_context(StopSignals()), opened.enter_context(Runtime(_say))
        keeper = opened.enter_context(closing(Keeper()))
        duty = Duty(_say, _report, Guard() if guards else None, runtime, keeper)
        Resident(duty, folder).run(stop, lambda: _begin(duty, runtime))
    _say("stopped; all policies stay in force")
    return 0


def _begin(duty: Duty, runtime: Runtime) -> None:
    duty.begin()
    runtime.start()
    _say("ready")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(outcome: Any) -> None:
    from emptcp.cli.outcome import print_outcome

    print_outcome(outcome, as_json=False)
    sys.stdout.flush()
