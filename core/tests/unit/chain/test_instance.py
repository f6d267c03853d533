# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emptcp.chain.instance import Instance, resident
from emptcp.errors import EmptcpError


def test_the_resident_process_can_be_asked_for(tmp_path: Path) -> None:
    assert resident(tmp_path) is None
    with Instance(tmp_path):
        assert resident(tmp_path) == os.getpid()
    assert resident(tmp_path) is None


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
