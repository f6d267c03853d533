# SPDX-License-Identifier: Apache-2.0
"""Which signals end the resident process."""

from __future__ import annotations

import os
import select
import signal

import pytest

from emptcp.control.resident import StopSignals


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGUSR1, False)]
)
def test_only_those_that_are_meant_to(number: signal.Signals, ends: bool) -> None:
    """Others wake it too, such as the SIGALRM that interrupts a plugin that hangs."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), number)
            assert select.select([stop], [], [], 5)[0] == [stop]
            assert stop.came() == ends
            assert select.select([stop], [], [], 0)[0] == []
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_hangup_does_not_end_it_and_is_told() -> None:
    with StopSignals() as stop:
        for number, hung_up in ((signal.SIGHUP, True), (signal.SIGTERM, False)):
            os.kill(os.getpid(), number)
            assert select.select([stop], [], [], 5)[0] == [stop]
            assert stop.came() is not hung_up
            assert stop.hung_up is hung_up
