# SPDX-License-Identifier: Apache-2.0
"""The entry point: finds the command's group, runs it, and prints refusals as sentences."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from emptcp.errors import EmptcpError
from emptcp.pybpf.errors import BpfError

COMMANDS: dict[str, tuple[str, str]] = {
    "apply": ("apply", "make a table what a policy file says"),
    "list": ("list", "print what runs, with counters per stage"),
    "show": ("list", "the same as list"),
    "diff": ("diff", "show how a file and what runs differ"),
    "remove": ("remove", "take a table, or one policy, out of force"),
    "tune": ("tune", "change parameters of a running stage, or a policy's `when`"),
    "set": ("set", "change and print the entries of a set"),
    "map": ("set", "change and print the entries of a map"),
    "chain": ("chain", "insert or remove an actor of a running policy"),
    "off": ("off", "switch everything, a table or a policy off"),
    "on": ("off", "switch everything, a table or a policy on again"),
    "confirm": ("confirm", "keep a change that was applied on probation"),
    "rollback": ("rollback", "take the last changes of tables back"),
    "connections": ("connections", "print MPTCP connections, their subflows and metrics"),
    "explain": ("explain", "tell what each policy does to a subflow, and why not"),
    "top": ("top", "show connections, paths and stages live"),
    "monitor": ("monitor", "print events of connections and plugins as they come"),
    "run": ("run", "stay resident: keep files in force, for plugins that need a process"),
    "trace": ("trace", "run a policy over a capture, packet by packet"),
    "lab": ("lab", "try policies between two hosts made of namespaces"),
    "plugins": ("plugins", "list, judge, install, enable and disable plugins"),
    "doctor": ("doctor", "tell what this machine can do, and repair leftovers"),
}
"""Command: the module in emptcp.cli that registers it, and its one line of help."""

FOR_ALL = ("plugins", "doctor")
"""Commands that do something useful without root."""

REFUSED, USAGE = 1, 2
MOST_LINES = 6


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (done), 1 (refused or failed) or 2 (usage)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        parser, around = _parser(words)
        with around:
            arguments = parser.parse_args(words)
            _check_rights(arguments.command)
            return int(arguments.run(arguments) or 0)
    except (EmptcpError, BpfError) as error:
        print(_shortened(f"emptcp: {error}"), file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except OSError as error:
        print(_shortened(f"emptcp: {_told(error)}"), file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return 130


def _parser(words: Sequence[str]) -> tuple[argparse.ArgumentParser, AbstractContextManager[None]]:
    """Return a parser that knows the called command in full, and what has to be around the run.

    Other commands it knows by name, those of plugins only where they are to be listed.
    """
    parser = argparse.ArgumentParser(
        prog="emptcp",
        description="Policies for live Multipath TCP traffic, as eBPF programs.",
        epilog="Start with: emptcp lab run two-path",
    )
    parser.add_argument("--version", action="version", version=_version(words))
    groups = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    called = next((word for word in words if not word.startswith("-")), "")
    own = COMMANDS[called][0] if called in COMMANDS else ""
    for name, (module, text) in COMMANDS.items():
        if module != own:
            groups.add_parser(name, help=text)
    if own:
        importlib.import_module(f"emptcp.cli.{own}").register(groups)
        return parser, nullcontext()
    return parser, _added(parser, groups, called)


def _added(parser: argparse.ArgumentParser, groups: Any, called: str) -> AbstractContextManager[None]:
    from emptcp.cli import added

    if called:
        return added.register(groups, parser, called, COMMANDS)
    added.name_all(groups, COMMANDS)
    return nullcontext()


def _check_rights(command: str) -> None:
    """Refuse what takes root before it begins. Commands of plugins see to that themselves."""
    if command in COMMANDS and command not in FOR_ALL and os.geteuid() != 0:
        raise EmptcpError(
            f"emptcp {command} reads and changes the kernel, which takes root", fix="Run it with sudo."
        )


def _told(error: OSError) -> EmptcpError:
    """Return what the system refused, in a sentence that names the file."""
    why = (error.strerror or str(error) or type(error).__name__).lower()
    if error.filename is None:
        return EmptcpError(f"the system refuses what this takes: {why}", fix="See: emptcp doctor")
    file = str(error.filename)
    if "/" not in file:
        return EmptcpError(f"the program '{file}' can't be run: {why}", fix="Install it, or mend PATH.")
    fix = "Mend that, and try again."
    if "EMPTCP_RUN" in os.environ and file.startswith(os.environ["EMPTCP_RUN"]):
        fix = "EMPTCP_RUN names the folder of emptcp's state: name another, or leave it out."
    return EmptcpError(f"{file} can't be used: {why}", fix=fix)


def _version(words: Sequence[str]) -> str:
    if "--version" not in words:
        return ""
    from importlib.metadata import version

    return f"emptcp {version('emptcp')}"


def _shortened(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(lines[:MOST_LINES])


if __name__ == "__main__":
    sys.exit(main())
