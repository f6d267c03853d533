# SPDX-License-Identifier: Apache-2.0
"""What a controller remembers beyond its process: its ``state``, as a small JSON file."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

LARGEST = 1 << 20
"""Bytes that a controller may remember."""

EVERY = 1.0
"""Seconds that lie between two writes at least: many disks that routers have wear out."""


def folder() -> Path:
    """Return where it is kept: ``EMPTCP_STATE``; ``state`` in ``EMPTCP_RUN`` where that is set; else
    ``/var/lib/emptcp``, as quotas count over reboots."""
    if named := os.environ.get("EMPTCP_STATE"):
        return Path(named)
    run = os.environ.get("EMPTCP_RUN")
    return Path(run) / "state" if run else Path("/var/lib/emptcp")


def file_of(table: str, controller: str) -> Path:
    """Return the file of one controller; both names have letters, digits and ``._-`` only."""
    return folder() / "controllers" / table / f"{controller}.json"


class Memory:
    """One controller's file; an empty name is for one that remembers nothing."""

    def __init__(self, file: str) -> None:
        self._file = Path(file) if file else None
        self._written = "{}"
        self._at = -math.inf
        self._complained = False

    def load(self) -> dict[str, Any]:
        """Return what was remembered. A damaged file is told of, set aside, and counts as none."""
        if self._file is None:
            return {}
        try:
            text = self._file.read_text(encoding="utf-8")
            state = json.loads(text)
            if not isinstance(state, dict):
                raise ValueError("it holds no object")
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            aside = self._file.with_suffix(".damaged")
            self._complain(f"{self._file} can't be read ({error}); its controller begins anew, see {aside}")
            if self._file.exists():
                os.replace(self._file, aside)
            return {}
        self._written = text
        return state

    def keep(self, state: dict[str, Any]) -> None:
        """Write the state when it is another one, at most every :data:`EVERY` seconds.

        Raises :class:`TypeError` or :class:`ValueError` for one that is no JSON object, or too large. What
        the disk refuses is told once: a controller goes on without.
        """
        now = time.monotonic()
        if self._file is None or now - self._at < EVERY:
            return
        text = _encoded(state)
        if text == self._written:
            return
        try:
            self._write(text)
        except OSError as error:
            self._complain(f"{self._file} can't be written: {error.strerror}")
        self._written, self._at = text, now

    def _write(self, text: str) -> None:
        assert self._file is not None
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, self._file)

    def _complain(self, line: str) -> None:
        if not self._complained:
            print(line, file=sys.stderr, flush=True)
        self._complained = True


def _encoded(state: dict[str, Any]) -> str:
    if not isinstance(state, dict):
        raise TypeError(f"a controller's state is a dictionary, not {type(state).__name__}")
    text = json.dumps(state, sort_keys=True, allow_nan=False)
    if len(text) > LARGEST:
        raise ValueError(f"its state takes {len(text)} bytes, and {LARGEST} are the most")
    return text
