# SPDX-License-Identifier: Apache-2.0
"""The command ``emptcp-sdk``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import SdkError

QUESTIONS = ("distribution", "summary", "author", "hooks", "variant")
"""What `--answer` may answer; the template asks them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``emptcp-sdk``; return 0 when done, 1 when refused (argparse exits with 2 on wrong usage)."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SdkError as error:
        print(error, file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emptcp-sdk", description="Tools for authors of emptcp plugins.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_new(commands)
    _add_update(commands)
    _add_build(commands)
    _add_check(commands)
    return parser


def _add_new(commands: Any) -> None:
    parser = commands.add_parser(
        "new",
        help="make a plugin's package",
        description="Make a small complete package: manifest, C, Python, tests, README, licences, CI.",
    )
    parser.add_argument("name", metavar="NAME", help="what policies call it, as in cap_window")
    # Its names stand in the template too, which is not read for --help.
    parser.add_argument("--kind", choices=("selector", "actor", "controller"), help="what it is")
    parser.add_argument("--into", type=Path, metavar="DIR", help="where; default: ./DISTRIBUTION")
    parser.add_argument("--defaults", action="store_true", help="ask nothing, take the defaults")
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="QUESTION=TEXT",
        type=_answer,
        help="answer a question: distribution, summary, author, hooks (both, ingress, egress), "
        "variant (of a controller: scheduler, path-manager)",
    )
    parser.set_defaults(run=_new)


def _add_update(commands: Any) -> None:
    parser = commands.add_parser(
        "update",
        help="bring what changed in the template to a package",
        description="Merge what changed in the template since the package was made, or last updated.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="a package; default: here")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.set_defaults(run=_update)


def _add_build(commands: Any) -> None:
    parser = commands.add_parser(
        "build", help="compile BPF C where it is out of date", description="Compile every src/**/*.bpf.c."
    )
    parser.add_argument(
        "folder", nargs="*", type=Path, default=[Path()], help="a distribution; default: here"
    )
    parser.set_defaults(run=_build)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="tell what is wrong with a plugin",
        description="Check a plugin without importing it; as root, also load its stages wherever they work.",
    )
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path(), help="a project's folder or a wheel; default: here"
    )
    parser.add_argument("--static", action="store_true", help="load nothing, also as root")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_check)


def _answer(text: str) -> tuple[str, str]:
    question, sign, answer = text.partition("=")
    if question not in QUESTIONS or not sign:
        raise argparse.ArgumentTypeError(f"'{text}' is not QUESTION=TEXT with one of: {', '.join(QUESTIONS)}")
    return question, answer


def _new(options: argparse.Namespace) -> int:
    from .project.new import new

    given = {"name": options.name, **({"kind": options.kind} if options.kind else {}), **dict(options.answer)}
    folder = new(given, options.into, defaults=options.defaults)
    # What a controller does is tested without a kernel.
    tox = "tox" if options.kind == "controller" else "sudo tox"
    print(f"made {folder}; next: cd {folder} && {tox}")
    return 0


def _update(options: argparse.Namespace) -> int:
    from .project.update import CONFLICT, update

    found = update(options.folder, dry_run=options.dry_run)
    for one in found:
        print(f"{one.outcome} {one.name}")
    if not found:
        print("nothing changed in the template")
    if any(one.outcome == CONFLICT for one in found):
        print("Resolve the conflicts: look for <<<<<<< in these files.", file=sys.stderr)
        return 1
    return 0


def _build(options: argparse.Namespace) -> int:
    from .build import build

    for folder in options.folder:
        for result in build(folder):
            if result.compiled:
                print(f"compiled {result.object}")
    return 0


def _check(options: argparse.Namespace) -> int:
    try:
        from .check import report, run
    except ImportError as error:
        fix = "Run: pip install 'emptcp-sdk[testing]'"
        raise SdkError(f"checking needs emptcp, which is not whole here ({error})", fix=fix) from None

    found = run.check(options.path, static=options.static)
    print(json.dumps(report.as_json(found), indent=1) if options.json else "\n".join(report.lines(found)))
    return int(found.failed)
