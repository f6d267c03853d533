# SPDX-License-Identifier: Apache-2.0
"""A BPF file system of the tests' own, and a network namespace to attach in."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace

_numbers = itertools.count()


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a BPF file system that ends with the test."""
    folder = tmp_path / "bpffs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True, timeout=10)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=10)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Return a network namespace with its loopback device up and a cable ``left``-``right`` inside."""
    name = f"emt{os.getpid()}-bpf{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        for command in ("link set lo up", "link add left type veth peer name right"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True, timeout=10)
        yield namespaces.resolve(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)
