# SPDX-License-Identifier: Apache-2.0
"""A controller's process: a real one, with a class of a module of the test's own."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emptcp.control.assignment import Assignment
from emptcp.control.path import Path as ControllerPath
from emptcp.control.process import MISSED, Answer, ControllerProcess
from emptcp.control.settings import Changed, decode, encode

from .test_connection import record

LOOPS = '''
import time

from emptcp.api import Controller


class Second(Controller):
    """Make the subflow of path two backup, as many seconds late as a parameter says."""

    def tick_connection(self, connection):
        time.sleep(self.late)
        for one in connection.subflows.on("two"):
            one.backup, one.rate = True, self.rate


class Stumble(Controller):
    def tick_connection(self, connection):
        connection.subflows[0].backup = True
        raise RuntimeError("first line\\nsecond")


class Count(Controller):
    def tick_connection(self, connection):
        self.state["ticks"] = self.state.get("ticks", 0) + 1


class Open(Controller):
    def tick_connection(self, connection):
        assert connection.blocked == {"two"}, connection.blocked
        connection.allow("one", "two")


class NoController:
    pass
'''
TARGETS = ("backup", "rate")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ControllerProcess]]:
    (tmp_path / "loops_of_a_test.py").write_text(LOOPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started: list[ControllerProcess] = []

    def made(name: str, targets: tuple[str, ...] = TARGETS, **more: object) -> ControllerProcess:
        paths = (ControllerPath("one"), ControllerPath("two"))
        parameters = {"late": 0.0, "rate": 5e5}
        given = {"parameters": parameters, "interval": 0.2, **more}
        started.append(
            ControllerProcess(
                Assignment(
                    f"loops_of_a_test:{name}", ["loops_of_a_test"], paths=paths, targets=targets, **given
                ),
                time.monotonic(),
            )
        )
        return started[-1]

    yield made
    for one in started:
        one.end()


def answer(process: ControllerProcess, seconds: float = 30) -> Answer | None:
    ready, _, _ = select.select([process], [], [], seconds)
    assert ready, f"no answer within {seconds} s"
    return process.hear(time.monotonic())


def asked(process: ControllerProcess, *records: bytes) -> Answer | None:
    process.ask(time.monotonic(), b"".join(records), {"10.0.0.1": "one", "7": "two"})
    return answer(process)


def test_a_tick_is_answered_with_settings_and_the_next_with_none(
    start: Callable[..., ControllerProcess],
) -> None:
    process = start("Second")
    assert answer(process) == Answer()
    assert process.idle
    records = record(1, family=6, device=7), record(2)
    first = asked(process, *records)
    assert first is not None
    assert {(one.target, one.value) for one in decode(first.settings, TARGETS)} == {
        ("backup", 1),
        ("rate", 500_000),
    }
    assert len({one.key for one in decode(first.settings, TARGETS)}) == 1
    assert asked(process, *records) == Answer()


def test_settings_in_force_at_the_start_are_not_repeated(start: Callable[..., ControllerProcess]) -> None:
    first = start("Second")
    answer(first)
    told = asked(first, record(1, family=6, device=7))
    assert told is not None
    settings: dict[bytes, dict[str, int]] = {}
    for one in decode(told.settings, TARGETS):
        settings.setdefault(one.key, {})[one.target] = one.value or 0
    second = start("Second", settings=settings)
    answer(second)
    assert asked(second, record(1, family=6, device=7)) == Answer()


def test_what_it_may_not_set_is_an_error_of_the_tick(start: Callable[..., ControllerProcess]) -> None:
    process = start("Second", targets=("backup",))
    answer(process)
    told = asked(process, record(1, family=6, device=7))
    assert told is not None
    assert "it sets 'rate', and may here set backup" in told.error
    assert not told.settings


def test_raising_sets_nothing_and_counts(start: Callable[..., ControllerProcess]) -> None:
    process = start("Stumble")
    answer(process)
    for _ in range(MISSED):
        assert not process.failed
        told = asked(process, record(1))
        assert told is not None
        assert told.error.startswith("RuntimeError: first line (loops_of_a_test.py:")
        assert not told.settings
    assert process.failed


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("NoController", "no subclass of emptcp.api.Controller"), ("Missing", "AttributeError")],
)
def test_a_class_that_is_none_is_told_at_once(
    start: Callable[..., ControllerProcess], name: str, sentence: str
) -> None:
    process = start(name)
    told = answer(process)
    assert told is not None
    assert sentence in told.error
    assert process.failed


def test_one_that_does_not_answer_is_overdue_after_three_intervals_and_a_second(
    start: Callable[..., ControllerProcess],
) -> None:
    process = start("Second", parameters={"late": 60.0, "rate": 1e6})
    answer(process)
    now = time.monotonic()
    process.ask(now, record(1, device=7), {"7": "two"})
    assert not process.idle
    assert process.overdue(now + 4.9) == ""  # the first tick has more time
    assert "missed 3 or more" in process.overdue(now + 5.1)
    process.ask(now, record(1, device=7), None)
    assert process.overdue(now + 0.9) == ""
    assert "missed 3 or more" in process.overdue(now + 1.1)


def test_its_end_is_told_and_leaves_no_process(start: Callable[..., ControllerProcess]) -> None:
    process = start("Second")
    answer(process)
    os.kill(process.pid, 9)
    assert answer(process) is None


def test_it_is_ended_twice_as_once_and_closes_nobody_elses_files(
    start: Callable[..., ControllerProcess],
) -> None:
    process = start("Second")
    process.end()
    reader, writer = os.pipe()  # takes the lowest numbers that are free, those of the channel
    process.end()
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)


def test_ticks_that_can_not_be_held_any_more_are_left_out(start: Callable[..., ControllerProcess]) -> None:
    process = start("Second")
    process.due = 100.0
    process.schedule(100.05)
    assert process.due == pytest.approx(100.2)
    process.schedule(107.0)
    assert process.due == pytest.approx(107.2)


def test_settings_survive_the_way_and_others_are_refused() -> None:
    key = bytes(range(36))
    targets = ("backup", "rate", "allow lte")
    changes = [(key, "backup", 1), (key, "rate", 1 << 40), (key, "rate", None), (key[:4], "allow lte", 1)]
    assert list(decode(encode(changes, targets), targets)) == [Changed(*one) for one in changes]
    for broken in (b"x", key + bytes((36, 0, 7)) + bytes(9)):
        with pytest.raises(ValueError, match="no settings"):
            list(decode(broken, targets))


def test_what_it_remembers_outlives_its_process(
    start: Callable[..., ControllerProcess], tmp_path: Path
) -> None:
    file = tmp_path / "kept" / "count.json"
    for _ in range(2):
        process = start("Count", state_file=str(file))
        assert answer(process) == Answer()
        assert asked(process, record()) == Answer()
    assert json.loads(file.read_text()) == {"ticks": 2}


def test_paths_are_blocked_or_open_as_their_targets_say(start: Callable[..., ControllerProcess]) -> None:
    targets = ("block one", "allow", "allow two")
    process = start("Open", targets=targets)
    answer(process)
    told = asked(process, record(1))
    assert told is not None
    assert told.error == ""
    key = (0xABC).to_bytes(4, "little")
    assert list(decode(told.settings, targets)) == [Changed(key, "allow two", 1), Changed(key, "allow", 1)]
