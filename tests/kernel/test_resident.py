# SPDX-License-Identifier: Apache-2.0
"""A plugin that needs a process in user space is refused while there is none, and runs when there is."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running
from emptcp.control.duty import Duty
from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["mark()"]
"""

HOOKS = """
from emptcp.api import hookimpl

heard = []

@hookimpl
def emptcp_event(event):
    heard.append(event.data)
"""
# struct emptcp_event of the fragment `mark`, and its four bytes
EVENT = struct.pack("=QIHBB36s32s4x", 1, 1, 4, 0, 0, bytes(36), b"mark") + b"data"


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
        said, deadline = b"", time.monotonic() + 30
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
            code = process.wait(30)
        finally:
            process.kill()
            process.communicate()
    assert code == 0


def test_a_plugin_that_is_enabled_after_the_start_hears_its_events(stranger: Callable[..., Path]) -> None:
    said: list[str] = []
    duty = Duty(said.append, lambda outcome: None)
    duty.refresh()
    folder = stranger(plugin='module = "strangers_mark.hooks"')
    Path(folder, "hooks.py").write_text(HOOKS)
    duty.refresh()
    duty.event(EVENT)
    assert "strangers_mark.hooks" not in sys.modules
    state.enable("mark")
    duty.refresh()
    duty.event(EVENT)
    assert sys.modules["strangers_mark.hooks"].heard == [b"data"]
    state.disable("mark")
    duty.refresh()
    duty.event(EVENT)
    assert sys.modules["strangers_mark.hooks"].heard == [b"data"]
    assert said == []


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
