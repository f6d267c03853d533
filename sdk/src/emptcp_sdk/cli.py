# SPDX-License-Identifier: Apache-2.0
"""The command ``emptcp-sdk``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import BuildError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``emptcp-sdk``; return 0 when done, 1 when refused (argparse exits with 2 on wrong usage)."""
    options = _parser().parse_args(arguments)
    try:
        for folder in options.folder:
            _build(folder)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emptcp-sdk", description="Tools for authors of emptcp plugins.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser(
        "build", help="compile BPF C where it is out of date", description="Compile every src/**/*.bpf.c."
    )
    build.add_argument("folder", nargs="*", type=Path, default=[Path()], help="a distribution; default: here")
    return parser


def _build(folder: Path) -> None:
    from .build import build

    for result in build(folder):
        if result.compiled:
            print(f"compiled {result.object}")
