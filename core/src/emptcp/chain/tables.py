# SPDX-License-Identifier: Apache-2.0
"""The tables that are meant to be in force, as policy files in the run folder; the lock and the journal.

What *is* in force is read from the kernel. The two meet in the journal: before anything is switched, the
table's new text is written as its journal entry; when all is switched, the entry becomes the table. A
command that finds an entry left by a crash carries it through first: entries only ever go forward.

A damaged file stands in the way of its own table only: who reads all files is given the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emptcp.chain import trips
from emptcp.chain.pins import make_run_folder, naming, run_folder
from emptcp.errors import EmptcpError

WAIT_SECONDS = 10.0
"""How long a command waits for another one's lock."""


@dataclass(frozen=True)
class Entry:
    """A table: its name, its text (empty: it is to be removed), and the namespace it was applied for."""

    table: str
    text: str
    netns: str = ""
    source: str = ""


@contextmanager
def lock() -> Iterator[None]:
    """Hold the lock that every changing command takes; waits up to :data:`WAIT_SECONDS`.

    Raises :class:`EmptcpError` naming the process that holds it.
    """
    path = make_run_folder() / "lock"
    with open(path, "a+", encoding="ascii") as file:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise EmptcpError(
                    f"another emptcp (process {holder}) is changing policies",
                    fix=f"Wait for it, or end it; the lock is {path}.",
                )
            time.sleep(0.05)
        with naming(path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def names() -> list[str]:
    """Return the names of the tables that are meant to be in force."""
    return sorted(path.stem for path in _folder("tables").glob("*.json"))


def read(table: str) -> Entry | None:
    """Return a table's entry, or ``None``."""
    return _read(_path("tables", table))


def entries() -> list[Entry]:
    """Return the entries of all tables whose files are whole."""
    return _whole("tables")


def damaged() -> list[EmptcpError]:
    """Return what is wrong with each damaged file, of the tables and of the journal."""
    return [error for folder in ("tables", "journal") for _, error in _read_all(folder) if error is not None]


def begin(entry: Entry) -> None:
    """Write a journal entry: from here on the change is carried through."""
    write(_path("journal", entry.table), asdict(entry))


def finish(entry: Entry) -> None:
    """Make a journal entry the table, or forget the table when its text is empty."""
    journal, table = _path("journal", entry.table), _path("tables", entry.table)
    if entry.text:
        table.parent.mkdir(mode=0o700, exist_ok=True)
        journal.replace(table)
    else:
        table.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
        trips.forget(entry.table)


def abandon(entry: Entry) -> None:
    """Forget a journal entry whose change was undone."""
    _path("journal", entry.table).unlink(missing_ok=True)


def unfinished() -> list[Entry]:
    """Return the journal's entries, of files that are whole: changes that a crash interrupted."""
    return _whole("journal")


def known() -> set[str]:
    """Return the names of all tables, those of the journal and damaged ones included."""
    return {path.stem for folder in ("tables", "journal") for path in _folder(folder).glob("*.json")}


def _whole(folder: str) -> list[Entry]:
    return [entry for entry, _ in _read_all(folder) if entry is not None]


def _read_all(folder: str) -> Iterator[tuple[Entry | None, EmptcpError | None]]:
    """Yield the entry of each file of a folder, or what is wrong with the file."""
    for path in sorted(_folder(folder).glob("*.json")):
        try:
            yield _read(path), None
        except EmptcpError as error:
            yield None, error


def _folder(name: str) -> Path:
    return run_folder() / name


def _path(folder: str, table: str) -> Path:
    return _folder(folder) / f"{table}.json"


def _read(path: Path) -> Entry | None:
    try:
        entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        raise _damaged(path) from None
    if entry.table != path.stem or not all(isinstance(value, str) for value in asdict(entry).values()):
        raise _damaged(path)
    return entry


def _damaged(path: Path) -> EmptcpError:
    return EmptcpError(
        f"the file {path} is damaged", fix="Delete it, and apply its table's policy file again."
    )


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file of the run folder as JSON, whole or not at all."""
    make_run_folder()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = path.with_suffix(".new")
    with naming(fresh), open(fresh, "w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
