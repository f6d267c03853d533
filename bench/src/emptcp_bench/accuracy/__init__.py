# SPDX-License-Identifier: Apache-2.0
"""What actors are asked for against what they bring about, on live connections in a lab: all rows."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emptcp.chain import apply, tables
from emptcp_bench.accuracy.row import Row

Say = Callable[[str], None]


def measure(rounds: int, say: Say, *, quick: bool = False) -> list[Row]:
    """Measure everything ``rounds`` times, and return a row for each thing asked; ``say`` hears of each."""
    from emptcp_bench.accuracy import backup, rates, removal, subflows

    makers = [rates.paced, rates.windowed, backup.rows, subflows.blocked, subflows.given_back, removal.rows]
    found: list[Row] = []
    with own_tables():
        for maker in makers[:1] if quick else makers:
            for row in maker(rounds, quick):
                say(f"{row.actor}: {row.asked}: {row.told}")
                found.append(row)
    return found


@contextmanager
def own_tables() -> Iterator[None]:
    """Keep tables and pins where no other emptcp of this machine sees them, and take them away after."""
    before = os.environ.get("EMPTCP_RUN")
    with tempfile.TemporaryDirectory(prefix="emptcp-accuracy-") as folder:
        os.environ["EMPTCP_RUN"] = str(Path(folder) / "run")
        try:
            yield
        finally:
            for name in tables.names():
                apply.remove(name)
            while os.path.ismount(Path(folder) / "run" / "bpf"):
                subprocess.run(
                    ["umount", "--lazy", str(Path(folder) / "run" / "bpf")], check=True, timeout=10
                )
            if before is None:
                del os.environ["EMPTCP_RUN"]
            else:
                os.environ["EMPTCP_RUN"] = before
