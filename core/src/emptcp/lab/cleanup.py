# SPDX-License-Identifier: Apache-2.0
"""Removes labs by their records: policies, processes by pid and start time, namespaces, then the record."""

from __future__ import annotations

import contextlib
import os

from emptcp.errors import EmptcpError
from emptcp.lab import namespace, process, state, steering
from emptcp.pybpf.errors import BpfError


def remove(record: state.Record) -> None:
    """Remove what a record names. Parts that are gone already are passed over, so it can be repeated.

    Processes that run inside the lab's namespaces go too: only the lab and who played in it put them there.
    """
    # A policy that can't be lifted must not keep the namespaces: with them its program is gone too.
    with contextlib.suppress(EmptcpError, BpfError):
        steering.lift(record.namespaces)
    inside = [one for name in record.namespaces for one in namespace.processes(name)]
    process.kill([one for one in (*record.processes, *inside) if one.pid != os.getpid()])
    for name in record.namespaces:
        namespace.remove(name)
    state.forget(record)


def sweep() -> list[state.Record]:
    """Remove every lab whose process died without doing so; return what was removed."""
    stale = [record for record in state.records() if record.stale]
    for record in stale:
        remove(record)
    return stale


def down(name: str) -> state.Record:
    """Remove one lab by name. Raises EmptcpError when there is none, or when its process still runs."""
    record = state.find(name)
    if record.owner is not None and record.owner.alive:
        raise EmptcpError(
            f"lab '{name}' belongs to process {record.owner.pid}, which removes it when it ends",
            fix=f"End that with Ctrl-C, or: kill {record.owner.pid}",
        )
    remove(record)
    return record


def down_all() -> list[state.Record]:
    """Remove every lab that is kept or left over; those of running processes stay."""
    idle = [record for record in state.records() if record.kept or record.stale]
    for record in idle:
        remove(record)
    return idle
