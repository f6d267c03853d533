# SPDX-License-Identifier: Apache-2.0
"""``python tests/vm KERNEL... [-- WORDS]``: run tests on other kernels, each in a guest of its own.

Without words, the tests are those of ``lane/selection.py``; with them, ``python WORDS`` runs in the guest.
Needs no privilege. Exit code: 0 if all went well, 1 if tests failed, 2 if a lane could not run.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from lane import contents, debian, machine, selection
from lane.environment import ROOT
from lane.refusal import Refusal
from lane.releases import RELEASES, Release, release

# How much of the kernel's messages a failure shows.
KERNEL_LINES = 30


def main(arguments: list[str]) -> int:
    """Run the lanes of the kernels that ``arguments`` name."""
    names, words = _split(arguments)
    # Else a terminated lane would leave its guest behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        if not names:
            raise Refusal(f"name the kernels to run on: {', '.join(RELEASES)}")
        codes = [_lane(one, words) for one in [release(name) for name in names]]
    except Refusal as refusal:
        print(f"vm: {refusal}", file=sys.stderr)
        return 2
    return int(any(codes))


def cache() -> Path:
    """Return the folder that keeps what was downloaded: ``EMPTCP_VM_CACHE``, else one below ``.tox``."""
    return Path(os.environ.get("EMPTCP_VM_CACHE") or ROOT / ".tox/kernels")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the kernels' names, and the words for Python in the guest."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _lane(wanted: Release, words: list[str]) -> int:
    began = time.monotonic()
    folder = cache() / wanted.name
    folder.mkdir(parents=True, exist_ok=True)
    kernel = debian.kernel(wanted, folder)
    with tempfile.NamedTemporaryFile(prefix="emptcp-vm-", suffix=".cpio") as file:
        contents.write(file, wanted.architecture, kernel, folder, words or selection.words(wanted))
        file.flush()
        print(f"vm-{wanted.name}: booting {kernel.version}, {file.tell() >> 20} MiB of files", flush=True)
        guest = machine.boot(wanted, kernel, Path(file.name), folder / "console.log", _show)
    return _told(wanted, guest, folder / "console.log", time.monotonic() - began)


def _show(line: str) -> None:
    print(line, flush=True)


def _told(wanted: Release, guest: machine.Guest, console: Path, seconds: float) -> int:
    """Say how the guest ended, with the kernel's last words where it did not end well."""
    if guest.code is None:
        said = console.read_text(encoding="utf-8", errors="replace").splitlines()[-KERNEL_LINES:]
        print("\n".join(said), file=sys.stderr)
    ended = "did not end" if guest.code is None else f"exit code {guest.code}"
    print(f"vm-{wanted.name}: {ended}, {seconds:.0f} s in all", flush=True)
    return 0 if guest.code == 0 else 1
