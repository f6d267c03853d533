# SPDX-License-Identifier: Apache-2.0
"""Datagrams to the service manager."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from emptcp.control.notify import READY, ServiceManager


@pytest.mark.parametrize("abstract", [False, True])
def test_words_arrive_at_either_kind_of_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"emt{os.getpid()}-notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        told = ServiceManager()
        assert "NOTIFY_SOCKET" not in os.environ
        told.tell(READY, "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"
        told.reloading()
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_nobody_who_listens_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceManager().tell(READY)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    ServiceManager().tell(READY)
