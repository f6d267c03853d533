# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces


def test_nothing_means_the_namespace_of_this_process() -> None:
    here = namespaces.resolve()
    assert here.cookie
    assert (here.name, str(here)) == ("", "this namespace")
    assert namespaces.resolve() == here


def test_work_in_the_own_namespace_needs_no_rights_and_no_thread() -> None:
    assert namespaces.call(namespaces.resolve(), threading.get_ident) == threading.get_ident()


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        namespaces.call(namespaces.resolve(), lambda: 1 // 0)


def test_a_pid_that_runs_nothing_is_named() -> None:
    with pytest.raises(EmptcpError, match="there is no process 4194999 "):
        namespaces.resolve(4194999)


def test_the_main_thread_is_never_moved() -> None:
    with pytest.raises(EmptcpError, match="the main thread stays"):
        namespaces.enter(namespaces.resolve())
