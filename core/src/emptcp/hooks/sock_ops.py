# SPDX-License-Identifier: Apache-2.0
"""Programs on socket events, attached to the root of the cgroup v2 tree.

The root, because a process may be in any cgroup; the programs look at the network namespace themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

from emptcp.errors import EmptcpError
from emptcp.pybpf import BpfError, Link, Program, features

_MOUNTS = Path("/proc/self/mountinfo")


def attach(program: Program, replace: Link | None = None) -> Link:
    """Attach a sock_ops program to the root cgroup, or put it in the place of another.

    :raises EmptcpError: cgroup v2 is not mounted, or the kernel refuses.
    """
    missing = features.reason("sock_ops")
    if missing:
        raise EmptcpError(f"programs on socket events can't be used here: {missing}")
    try:
        return _attach(program, replace)
    except BpfError as problem:
        raise EmptcpError(f"the root cgroup: {problem.sentence}", fix=problem.fix) from None


def root_cgroup() -> Path:
    """Return where the root of the cgroup v2 tree is mounted, whether alone or beside v1 hierarchies.

    :raises EmptcpError: it is not.
    """
    for row in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, filesystem = row.partition(" - ")
        root, mount = fields.split()[3:5]
        if filesystem.startswith("cgroup2 ") and root == "/":
            return Path(mount.encode().decode("unicode_escape"))
    raise EmptcpError(
        "the cgroup v2 tree is not mounted, and programs on socket events are attached to its root",
        fix="Mount it: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
    )


def _attach(program: Program, replace: Link | None) -> Link:
    if replace is not None:
        replace.update(program)
        return replace
    descriptor = os.open(root_cgroup(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Link.attach_cgroup(program, descriptor)
    finally:
        os.close(descriptor)
