# SPDX-License-Identifier: Apache-2.0
"""A network namespace with a device of each kind that matters, and programs to attach."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from emptcp.hooks import devices, namespaces
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import Program, load_program
from emptcp.pybpf.assembly import answer

_numbers = itertools.count()


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10).stdout


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A namespace with a cable ``left``-``right``, ``tun0``, ``tap0``, ``br0`` and ``lo``.

    ``left`` refuses native XDP, because its peer's frames are too long; ``right`` takes it.
    """
    name = f"emt{os.getpid()}-hook{next(_numbers)}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "add", "left", "type", "veth", "peer", "name", "right")
        ip("-n", name, "link", "set", "right", "mtu", "9000")
        ip("-n", name, "tuntap", "add", "tun0", "mode", "tun")
        ip("-n", name, "tuntap", "add", "tap0", "mode", "tap")
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        yield namespaces.resolve(name)
    finally:
        ip("netns", "del", name)


@pytest.fixture
def device(host: Namespace) -> Callable[[str], Device]:
    return lambda name: devices.find(host, name)


def load(kind: str, name: str = "emptcp_test") -> Program:
    """Load a program that lets every packet pass, of the kind a back-end takes."""
    return load_program(kind, answer(2 if kind == "xdp" else -1), name=name)


@pytest.fixture
def supply() -> Callable[[str], Program]:
    """Return what loads emptcp's program of a kind."""
    return load


@pytest.fixture
def alien() -> Callable[[str], Program]:
    """Return what loads another tool's program of a kind."""
    return lambda kind: load(kind, "alien")
