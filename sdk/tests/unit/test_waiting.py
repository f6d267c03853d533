# SPDX-License-Identifier: Apache-2.0
"""Waiting until something holds."""

from __future__ import annotations

import time
from functools import partial

import pytest

from emptcp_sdk.testing import wait_until


def test_it_looks_until_it_holds() -> None:
    looks = iter([False, 0, "", "now", False])
    wait_until(lambda: next(looks))
    assert next(looks) is False


def test_it_looks_once_more_when_the_time_is_over() -> None:
    began = time.monotonic()
    looks: list[float] = []

    def slowly() -> bool:
        looks.append(time.monotonic() - began)
        time.sleep(0.2)
        return len(looks) == 2

    wait_until(slowly, seconds=0.1)
    assert looks[1] > 0.1


def test_it_says_what_did_not_hold_for_how_long_and_what_there_is_instead() -> None:
    found: list[int] = []
    with pytest.raises(AssertionError) as raised:
        wait_until(lambda: found.append(1), 0.1, lambda: f"{found[0]} was found")
    waited = "wait_until(lambda: found.append(1), 0.1"
    assert str(raised.value).startswith(f"not within 0.1 s: {waited}")
    assert str(raised.value).endswith(": 1 was found")
    assert len(found) > 1


def test_something_is_done_between_two_looks() -> None:
    done: list[int] = []
    wait_until(lambda: len(done) == 3, meanwhile=lambda: done.append(len(done)))
    assert done == [0, 1, 2]


def test_what_has_no_source_is_told_by_its_name() -> None:
    with pytest.raises(AssertionError, match=r"^not within 0 s: functools\.partial\(.*bool.*, 0\)$"):
        wait_until(partial(bool, 0), 0)
    with pytest.raises(AssertionError, match=r"^not within 0 s: list\.copy$"):
        wait_until([].copy, 0)


def test_what_holds_raises_is_not_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0)
