# SPDX-License-Identifier: Apache-2.0
"""Gradual opening on connections without a kernel."""

from __future__ import annotations

import pytest

from emptcp.api import Path
from emptcp_pathmanager_gradual.path_manager import Gradual
from emptcp_sdk.testing import Setting, SimulatedConnection, SimulatedSubflow

MBIT = 125_000
LINKS = {"dsl": ("copper",), "cable": ("coax",), "resold": ("copper",), "lte": ("air",)}


def connected(*names: str) -> SimulatedConnection:
    """Return a connection that begins on the first path, the others being blocked."""
    made = {name: SimulatedSubflow(0.02, 20 * MBIT, path=Path(name, links=LINKS[name])) for name in names}
    return SimulatedConnection(made, blocked=True)


def gradual(connection: SimulatedConnection, *after: int) -> Gradual:
    return Gradual({"after": after or (100_000, 1_000_000)}, connection.paths)


def allowed(connection: SimulatedConnection) -> list[str]:
    assert all(one.setter == "block" and one.value is False for one in connection.settings)
    return [one.subflow for one in connection.settings]


def test_a_short_connection_keeps_its_one_subflow() -> None:
    connection = connected("dsl", "cable")
    connection.run(gradual(connection), ticks=10, write=9_999)
    assert connection.settings == []
    assert len(connection.connection.subflows) == 1


def test_each_threshold_opens_one_path_in_the_files_order() -> None:
    connection = connected("dsl", "cable", "lte")
    connection.run(gradual(connection), ticks=1, write=100_000)
    assert connection.settings == [Setting(1, "cable", "block", False)]
    connection.run(gradual(connection), ticks=20, write=200_000)
    assert allowed(connection) == ["cable", "lte"]
    assert all(connection[name].sent for name in ("dsl", "cable"))


def test_a_path_that_shares_a_link_with_one_in_use_is_passed_over() -> None:
    connection = connected("dsl", "resold", "lte")
    connection.run(gradual(connection), ticks=30, write=100_000)
    assert allowed(connection) == ["lte"]


def test_what_shares_a_link_with_the_second_path_is_passed_over_too() -> None:
    connection = connected("lte", "dsl", "resold")
    connection.run(gradual(connection), ticks=30, write=100_000)
    assert allowed(connection) == ["dsl"]


def test_it_goes_by_the_path_that_the_connection_began_on() -> None:
    connection = connected("resold", "dsl", "cable")
    connection.run(gradual(connection), ticks=1, write=2_000_000)
    assert allowed(connection) == ["cable"]


def test_several_thresholds_at_once_open_several_paths() -> None:
    connection = connected("dsl", "cable", "lte")
    connection.run(gradual(connection, 1, 2), ticks=1, write=1_000)
    assert allowed(connection) == ["cable", "lte"]


@pytest.mark.parametrize("names", [["dsl"], ["dsl", "resold"]])
def test_where_no_other_path_is_left_it_sets_nothing(names: list[str]) -> None:
    connection = connected(*names)
    connection.run(gradual(connection), ticks=10, write=500_000)
    assert connection.settings == []


def test_a_subflow_on_no_path_of_the_file_opens_none() -> None:
    connection = connected("dsl", "lte")
    controller = Gradual({"after": (1,)}, [Path("other", links=("x",))])
    connection.run(controller, ticks=3, write=100_000)
    assert connection.settings == []
