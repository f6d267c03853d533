# SPDX-License-Identifier: Apache-2.0
"""Messages between the runtime and a controller's process."""

from __future__ import annotations

import pytest

from emptcp.control.channel import pair


def test_bodies_of_any_size_go_both_ways_and_nobody_waits() -> None:
    ours, theirs = pair()
    large = bytes(range(256)) * 20_000
    ours.send({"tick": 1}, large)
    assert theirs.receive() == ({"tick": 1}, large)
    theirs.send({"tick": 1}, b"short")
    assert ours.receive(wait=False) == ({"tick": 1}, b"short")
    ours.send({"tick": 2})
    assert theirs.receive() == ({"tick": 2}, b"")
    for end in (ours, theirs):
        end.close()


def test_nothing_there_and_nobody_there_are_told_apart() -> None:
    ours, theirs = pair()
    with pytest.raises(BlockingIOError):
        ours.receive(wait=False)
    theirs.close()
    assert ours.receive(wait=False) is None
    with pytest.raises(OSError, match="pipe"):
        ours.send({})
    ours.close()
