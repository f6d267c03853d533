# SPDX-License-Identifier: Apache-2.0
"""`emptcp set|map add|del|list|flush`: the entries of a running table's sets and maps."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.entries import Changed, Entries, Entry

SCHEMA = 1
STDIN = "-"

_EXAMPLES = {"set": "10.0.0.1:4000-10.0.0.2:443", "map": "10.0.0.1:4000-10.0.0.2:443=10mbit"}


def register(groups: Any) -> None:
    """Add both commands to the parser's subcommands."""
    for kind in ("set", "map"):
        parser = groups.add_parser(
            kind,
            help=f"change and print the entries of a {kind}",
            description=f"Changes and prints the entries of a {kind} while it runs. Nothing is reloaded; "
            "a change is carried out whole or not at all.",
        )
        commands = parser.add_subparsers(metavar="COMMAND", required=True)
        _add(commands, kind)
        _del(commands, kind)
        _flush(commands, kind)
        _list(commands, kind)


def _command(commands: Any, kind: str, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("name", metavar=kind.upper(), help=f"the {kind}, or TABLE/{kind.upper()}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(kind=kind)
    return parser


def _changing(commands: Any, kind: str, name: str, text: str) -> argparse.ArgumentParser:
    parser = _command(commands, kind, name, text)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    return parser


def _add(commands: Any, kind: str) -> None:
    parser = _changing(commands, kind, "add", "put entries in, or in force with another value")
    entry = "KEY=VALUE" if kind == "map" else "KEY"
    text = f"as in {_EXAMPLES[kind]}; {STDIN} reads them from stdin, one per line"
    parser.add_argument("entries", metavar=entry, nargs="+", help=text)
    parser.add_argument("--timeout", default="", metavar="TIME", help="how long they count, as in 30s")
    parser.set_defaults(run=_run_add)


def _del(commands: Any, kind: str) -> None:
    parser = _changing(commands, kind, "del", "take entries out")
    text = f"their keys; {STDIN} reads them from stdin, one per line"
    parser.add_argument("entries", metavar="KEY", nargs="+", help=text)
    parser.set_defaults(run=_run_del)


def _flush(commands: Any, kind: str) -> None:
    _changing(commands, kind, "flush", "take all entries out").set_defaults(run=_run_flush)


def _list(commands: Any, kind: str) -> None:
    _command(commands, kind, "list", "print the entries").set_defaults(run=_run_list)


def _run_add(arguments: argparse.Namespace) -> int:
    words = list(_words(arguments.entries))
    add = dict(map(_pair, words)) if arguments.kind == "map" else dict.fromkeys(words, "")
    return _change(arguments, add=add, timeout=arguments.timeout)


def _run_del(arguments: argparse.Namespace) -> int:
    return _change(arguments, remove=list(_words(arguments.entries)))


def _run_flush(arguments: argparse.Namespace) -> int:
    return _change(arguments, flush=True)


def _words(given: Sequence[str]) -> Iterator[str]:
    """Yield the entries of the command line; those of stdin, without empty lines and comments, for ``-``."""
    for word in given:
        if word != STDIN:
            yield word
            continue
        for line in sys.stdin:
            text = line.partition("#")[0].strip()
            if text:
                yield text


def _pair(word: str) -> tuple[str, str]:
    from emptcp.errors import EmptcpError, quoted

    key, equals, value = word.partition("=")
    if not equals:
        raise EmptcpError(f"{quoted(word)} has no value", fix=f"Write it as in {_EXAMPLES['map']}.")
    return key.strip(), value.strip()


def _change(arguments: argparse.Namespace, **change: Any) -> int:
    from emptcp.chain import entries

    with entries.opened(arguments.kind, arguments.name) as opened:
        done = opened.change(dry_run=arguments.dry_run, **change)
        _print_change(opened, done, arguments)
    return 0


def _print_change(opened: Entries, done: Changed, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, **_about(opened), **asdict(done), "dry_run": arguments.dry_run}))
        return
    would = "would be " if arguments.dry_run else ""
    store = opened.store
    parts = ((done.added, "added"), (done.changed, "changed"), (done.removed, "removed"))
    said = ", ".join(f"{number} {would}{word}" for number, word in parts if number)
    print(f"{store.kind} {store.name} of table {store.table}: {said or 'nothing to do'}")
    for key in done.absent:
        print(f"warning: {key} was not there", file=sys.stderr)


def _about(opened: Entries) -> dict[str, Any]:
    store = opened.store
    return {"table": store.table, "kind": store.kind, "name": store.name}


def _run_list(arguments: argparse.Namespace) -> int:
    from emptcp.chain import entries

    with entries.opened(arguments.kind, arguments.name) as opened:
        found = opened.list()
        if arguments.json:
            size = {"size": opened.store.storage.size, "count": len(found)}
            shown = [_entry(entry) for entry in found]
            print(json.dumps({"schema": SCHEMA, **_about(opened), **size, "entries": shown}))
            return 0
    for entry in found:
        print(_line(entry))
    return 0


def _entry(entry: Entry) -> dict[str, Any]:
    value = {"value": entry.value} if entry.value else {}
    return {"key": entry.key, **value, "expires_ns": entry.left}


def _line(entry: Entry) -> str:
    """Return an entry as `add` reads it; until when it counts stands behind it."""
    written = f"{entry.key}={entry.value}" if entry.value else entry.key
    return written if entry.left is None else f"{written}  # {entry.left / 1e9:.1f}s left"
