# SPDX-License-Identifier: Apache-2.0
"""A plugin that hangs is interrupted and named, and the others are called all the same."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emptcp.api import EmptcpError, hookimpl
from emptcp.cli.main import main
from emptcp.plugins import state
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.deadline import Overdue, limit, within
from emptcp.plugins.manager import Failure, Manager
from emptcp.policy import when


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_HOOK_LIMIT", "0.3")


@pytest.fixture
def waiting() -> Iterator[Callable[[], object]]:
    """A system call that never ends."""
    one, other = socket.socketpair()
    with one, other:
        yield lambda: one.recv(1)


def compute() -> None:
    while True:
        pass


def stubborn() -> None:
    while True:
        try:
            time.sleep(60)
        except Exception:
            continue


@pytest.mark.parametrize("hang", [compute, stubborn, None], ids=["computing", "catching all", "waiting"])
def test_a_hook_that_hangs_is_reported_and_stops_nobody(
    hang: Callable[[], object] | None, waiting: Callable[[], object]
) -> None:
    reported: list[Failure] = []
    manager, called = Manager(report=reported.append), []

    @hookimpl
    def emptcp_applied(change: object) -> None:
        (hang or waiting)()

    @hookimpl(specname="emptcp_applied", trylast=True)
    def after(change: object) -> None:
        called.append(change)

    manager.register(SimpleNamespace(emptcp_applied=emptcp_applied), "hanging")
    manager.register(SimpleNamespace(after=after), "sound")
    manager.hook.emptcp_applied(change="a change")
    assert called == ["a change"]
    assert [str(one) for one in reported] == [
        "plugin 'hanging' failed in emptcp_applied (Overdue: it took longer than 0.3 s)"
    ]


def test_a_wrapper_that_hangs_leaves_the_result_as_it_was() -> None:
    manager = Manager(report=lambda failure: None)

    @hookimpl(wrapper=True)
    def emptcp_format(stage: object) -> Generator[None, Any, Any]:
        yield
        compute()

    @hookimpl(specname="emptcp_format")
    def words(stage: object) -> str:
        return "words"

    manager.register(SimpleNamespace(emptcp_format=emptcp_format), "hanging")
    manager.register(SimpleNamespace(words=words), "sound")
    assert manager.hook.emptcp_format(stage=None) == "words"
    assert [one.plugin for one in manager.failures] == ["hanging"]


def test_a_stage_that_its_plugin_does_not_check_in_time_is_refused(site: Any) -> None:
    site.add()
    state.enable("cap")
    stage = Catalog.of_enabled().bind(when.parse_stage("cap(1mbit)"))
    manager = Manager(report=lambda failure: None)

    @hookimpl
    def emptcp_validate(stage: object, policy: object) -> None:
        compute()

    manager.register(SimpleNamespace(emptcp_validate=emptcp_validate), "cap")
    with pytest.raises(EmptcpError, match=r"can't be checked: plugin 'cap' failed .* took longer than 0.3 s"):
        manager.validate(stage, policy=SimpleNamespace())  # type: ignore[arg-type]


def test_a_module_that_hangs_when_imported_is_reported(site: Any) -> None:
    Path(site.add(), "hooks.py").write_text("while True: pass\n")
    state.enable("cap")
    manager = Manager(report=lambda failure: None)
    manager.load([one for one in state.judged() if one.name == "cap"])
    assert [(one.plugin, one.hook) for one in manager.failures] == [("cap", "import")]


def test_listing_plugins_needs_no_limit(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path(site.add(), "hooks.py").write_text("while True: pass\n")
    state.enable("cap")
    assert main(["plugins", "list"]) == 0
    assert "enabled" in capsys.readouterr().out


def test_what_was_due_before_is_due_after() -> None:
    """pytest's own limit works by the same signal."""
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 50, 7)
    try:
        with within(0.2), pytest.raises(Overdue):
            compute()
        due, again = signal.getitimer(signal.ITIMER_REAL)
        assert 48 < due < 49.9
        assert again == 7
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        with within(60):
            assert signal.getitimer(signal.ITIMER_REAL)[0] < 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_another_thread_has_no_limit() -> None:
    done = []

    def work() -> None:
        with within(0.1):
            time.sleep(0.3)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert done == [True]


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("nonsense", 30), ("0", 0.1)])
def test_the_limit_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setenv("EMPTCP_HOOK_LIMIT", text)
    assert limit() == seconds
