# SPDX-License-Identifier: Apache-2.0
"""The process of one controller: ``python -m emptcp.control.worker HEADS INBOUND OUTBOUND``.

It is started by ``emptcp run`` and ends with it. It gets the records of each tick, lets the plugin's class
look at the connections, and answers with what is to be set. What the class raises is told, and sets nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from emptcp.chain.controllers import allows
from emptcp.control.assignment import Assignment
from emptcp.control.channel import Channel
from emptcp.control.connection import Connections, Doors
from emptcp.control.controller import Controller
from emptcp.control.memory import Memory
from emptcp.control.path import Path, at
from emptcp.control.settings import encode
from emptcp.control.subflow import ConnectionSubflow

if TYPE_CHECKING:
    from emptcp.control.passing import Passing

_PR_SET_PDEATHSIG = 1


class Worker:
    """A controller and its connections."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._places: dict[str, Path] = {}
        self._paths = {path.name: path for path in assignment.paths}
        self._memory = Memory(assignment.state_file)
        self.controller = _make(assignment)
        self.controller.state = self._memory.load()
        self._passing: Passing | None = None
        if assignment.hop is not None:
            from emptcp.control.passing import Passing

            self._passing = Passing(assignment.hop, assignment.paths)
        self.connections = Connections(
            assignment.settings, self._path_of, _doors(assignment), assignment.paths
        )

    def tick(self, records: bytes, places: Mapping[str, str] | None) -> bytes:
        """Return what is to be set; ``places`` are addresses and ifindexes -> path, where they changed."""
        if places is not None:
            self._places = {place: self._paths[name] for place, name in places.items()}
        if self._passing is not None:
            records, self.controller.load = self._passing.records(), self._passing.load()
        found = self.connections.see(records, time.monotonic())
        try:
            self.controller.tick(found)
            changes = list(self.connections.changes())
            self._refuse_others({target for _, target, value in changes if value is not None})
            self._memory.keep(self.controller.state)
        except BaseException:
            self.connections.abandon()
            raise
        self.connections.settle()
        return encode(changes, self._assignment.targets)

    def _refuse_others(self, used: set[str]) -> None:
        for target in used.difference(self._assignment.targets):
            allowed = ", ".join(self._assignment.targets)
            raise PermissionError(f"it sets '{target}', and may here set {allowed}")

    def _path_of(self, subflow: ConnectionSubflow) -> Path | None:
        if self._passing is not None:
            return subflow.steer
        if not self._places:
            return None
        return at(self._places, subflow.local[0], subflow.device)


def _doors(assignment: Assignment) -> Doors:
    of_paths = ((target, target.partition(" ")[2]) for target in assignment.targets)
    return {path: allows(target) for target, path in of_paths if path}


def _make(assignment: Assignment) -> Controller:
    from emptcp.plugins import sources

    sources.always_compile(assignment.packages)
    module, _, name = assignment.entry.partition(":")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, Controller)):
        raise TypeError(f"{assignment.entry} is no subclass of emptcp.api.Controller")
    made = kind(assignment.parameters, assignment.paths)
    if assignment.interval is not None:
        made.interval = assignment.interval
    return made


def serve(channel: Channel) -> None:
    """Work until the other end is gone."""
    first = channel.receive()
    if first is None:
        return
    try:
        worker = Worker(pickle.loads(first[1]))
    except BaseException as error:
        channel.send({"error": _told(error)})
        return
    channel.send({"ready": True, "interval": worker.controller.interval})
    while (message := channel.receive()) is not None:
        head, records = message
        try:
            channel.send({"tick": head["tick"]}, worker.tick(records, head.get("places")))
        except Exception as error:
            channel.send({"tick": head["tick"], "error": _told(error)})


def _told(error: BaseException) -> str:
    """Return what was raised and where, in one line."""
    trace = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(trace[-1].filename)}:{trace[-1].lineno})" if trace else ""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}{where}"[:500]


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it does, whatever it is busy with."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Be a controller's process."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this
    serve(Channel.of(*map(int, sys.argv[1:4])))


if __name__ == "__main__":
    main()
