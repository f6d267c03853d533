# SPDX-License-Identifier: Apache-2.0
"""One record per lab, written before anything is made, so that whoever comes after a crash can clean up.

A record is the file ``lab/NAME.json`` under ``EMPTCP_RUN`` (default /run/emptcp). It names what the lab made
and, unless the lab is kept (``emptcp lab up``), the process it belongs to.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.lab.process import Identity

SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Record:
    """What a lab made: namespaces in the order a, b; processes to end; how its hosts are linked.

    ``owner`` is the process the lab lives and dies with; ``None`` for a lab that is kept until
    ``emptcp lab down``.
    """

    name: str
    owner: Identity | None
    namespaces: tuple[str, ...]
    link: str = ""
    processes: tuple[Identity, ...] = ()
    paths: tuple[dict[str, Any], ...] = field(default=())

    @property
    def kept(self) -> bool:
        """Whether the lab stays after the command that made it."""
        return self.owner is None

    @property
    def stale(self) -> bool:
        """Whether the process it belonged to is gone."""
        return self.owner is not None and not self.owner.alive

    def with_process(self, more: Identity | None) -> Record:
        """The same record with one more process to end; ``None``, one that is gone already, adds nothing."""
        return replace(self, processes=(*self.processes, more)) if more else self


def folder() -> Path:
    """Where the records are: ``$EMPTCP_RUN/lab``."""
    return Path(os.environ.get("EMPTCP_RUN", "/run/emptcp")) / "lab"


def check_name(name: str) -> str:
    """Return the name when a lab may have it."""
    if NAME.fullmatch(name) is None:
        raise EmptcpError(
            f"'{name}' can't name a lab",
            fix="Use up to 40 lower-case letters, digits and hyphens, not starting with a hyphen.",
        )
    return name


def create(record: Record) -> None:
    """Write a new lab's record. Refused when a lab of this name has one."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with _file(record.name).open("x") as file:
            file.write(_encode(record))
    except FileExistsError:
        raise EmptcpError(
            f"there is a lab named '{record.name}' already",
            fix=f"Choose another name, or remove it: emptcp lab down {record.name}",
        ) from None


def update(record: Record) -> None:
    """Replace a lab's record; whoever reads at the same time sees the old one or the new one."""
    fresh = _file(record.name).with_suffix(f".{os.getpid()}.new")
    fresh.write_text(_encode(record))
    fresh.replace(_file(record.name))


def forget(record: Record) -> None:
    """Remove a lab's record; nothing happens when it is gone already."""
    _file(record.name).unlink(missing_ok=True)


def records() -> list[Record]:
    """Every lab there is a record of, by name. A file that can't be read as a record is left out."""
    found = (_read(file) for file in sorted(folder().glob("*.json")))
    return [record for record in found if record is not None]


def find(name: str) -> Record:
    """The record of one lab."""
    known = {record.name: record for record in records()}
    if name not in known:
        raise EmptcpError(
            f"there is no lab named '{name}'",
            fix=did_you_mean(name, known).capitalize() or "See which there are: emptcp lab list",
        )
    return known[name]


def _file(name: str) -> Path:
    return folder() / f"{name}.json"


def _encode(record: Record) -> str:
    return json.dumps({"schema": SCHEMA, **asdict(record)}, indent=1)


def _read(file: Path) -> Record | None:
    try:
        return _decode(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decode(data: dict[str, Any]) -> Record | None:
    if data["schema"] != SCHEMA:
        return None
    owner = data["owner"]
    return Record(
        name=data["name"],
        owner=Identity(**owner) if owner else None,
        namespaces=tuple(data["namespaces"]),
        link=data["link"],
        processes=tuple(Identity(**one) for one in data["processes"]),
        paths=tuple(data["paths"]),
    )
