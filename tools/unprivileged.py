# SPDX-License-Identifier: Apache-2.0
"""Run Python with the given arguments and without any privilege: ``unprivileged.py -m pytest ...``.

Started by root, it becomes the owner of this tree if that is someone else, and gives up every capability, so
that a test which silently needs root fails. Started by a plain user, there is nothing to give up.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
LAST_POSSIBLE_CAPABILITY = 63


def become_owner() -> None:
    """Take the identity of the tree's owner, whose files root without capabilities could not even reach."""
    owner = ROOT.stat().st_uid
    if os.getuid() != 0 or owner == 0:
        return
    let_others_reach(Path(sys.prefix))
    entry = pwd.getpwuid(owner)
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(owner)
    os.environ["HOME"] = entry.pw_dir


def let_others_reach(environment: Path) -> None:
    """Open the folders of this tree that lead to the environment: tox makes ``.tox`` for its user alone."""
    for folder in environment.parents:
        if folder.is_relative_to(ROOT) and folder != ROOT:
            folder.chmod(folder.stat().st_mode | 0o055)


def forbid_capabilities() -> None:
    """Empty the bounding set, so that the next exec has no capability, and set-user-ID programs give none."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(LAST_POSSIBLE_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def effective_capabilities() -> int:
    """Return this process's effective capabilities as a bit set."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("CapEff:")[2].split()[0], 16)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--dropped"]:
        become_owner()
        forbid_capabilities()
        os.execv(sys.executable, [sys.executable, __file__, "--dropped", *sys.argv[1:]])
    if effective_capabilities():
        sys.exit("capabilities are left after dropping them all: the unit tests would prove nothing")
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
