# SPDX-License-Identifier: Apache-2.0
"""A plugin that needs a process in user space is refused while there is none, and runs when there is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["mark()"]
"""


@contextmanager
def resident(site: Path) -> Iterator[None]:
    """Have an ``emptcp run`` that finds the plugin, from when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "emptcp.cli.main", "run"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))},
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said, deadline = b"", time.monotonic() + 20
        while b"ready" not in said:
            ready, _, _ = select.select([process.stderr], [], [], max(0, deadline - time.monotonic()))
            assert ready, said
            read = os.read(process.stderr.fileno(), 4096)
            assert read, said
            said += read
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(10)
        finally:
            process.kill()
            process.communicate()
    assert code == 0


def test_a_resident_plugin_takes_a_resident_process(
    netns: Callable[[], str], emptcp: Any, write: Callable[..., str], stranger: Callable[..., Path]
) -> None:
    folder = stranger(plugin="resident = true")
    assert emptcp("plugins", "enable", "mark").code == 0
    apply = ("apply", write(POLICY), "--netns", netns())
    for words in (apply, (*apply, "--dry-run")):
        done = emptcp(*words)
        assert done.code == 1
        assert "policy.toml:6:8: actor 'mark' of policy 'p' needs a process in user space" in done.err
        assert "emptcp run" in done.err.splitlines()[-1]
        assert running.everything() == {}
    with resident(folder.parent):
        assert emptcp(*apply).code == 0
        assert len(running.everything()) == 1
    # What runs goes on when the process ends, and can be removed without it.
    assert len(running.everything()) == 1
    assert emptcp("remove", "t").code == 0
    assert emptcp(*apply).code == 1
