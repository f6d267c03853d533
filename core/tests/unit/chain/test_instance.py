# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emptcp.chain.instance import Instance, guarding, resident
from emptcp.errors import EmptcpError


def test_the_resident_process_can_be_asked_for(tmp_path: Path) -> None:
    assert resident(tmp_path) is None
    with Instance(tmp_path):
        assert resident(tmp_path) == os.getpid()
    assert resident(tmp_path) is None


def test_it_tells_whether_it_guards(tmp_path: Path) -> None:
    assert guarding(tmp_path) is None
    with Instance(tmp_path):
        assert guarding(tmp_path) is None
    with Instance(tmp_path, guards=True):
        assert guarding(tmp_path) == resident(tmp_path) == os.getpid()
    assert guarding(tmp_path) is None


def test_who_asks_is_in_nobodys_way(tmp_path: Path) -> None:
    with Instance(tmp_path):
        pass
    with open(tmp_path / "run.lock", "rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as another one that asks
        assert resident(tmp_path) is None
        release = threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN))
        release.start()
        with Instance(tmp_path):
            assert resident(tmp_path) == os.getpid()
        release.join()


def test_a_second_one_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with Instance(tmp_path):
        with pytest.raises(EmptcpError) as refused:
            Instance(tmp_path).__enter__()
        assert f"process {os.getpid()}" in refused.value.sentence
        assert f"kill {os.getpid()}" in refused.value.fix


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from emptcp.chain.instance import Instance\n"
        f"Instance(Path({str(tmp_path)!r})).__enter__()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert resident(tmp_path) == child.pid
        child.kill()
        child.wait(10)
        assert resident(tmp_path) is None
    with Instance(tmp_path):
        assert resident(tmp_path) == os.getpid()
