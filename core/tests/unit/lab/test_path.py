# SPDX-License-Identifier: Apache-2.0
"""What a path is, and how netem is told."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.lab.links import netem
from emptcp.lab.path import MAX_PATHS, Path, place, place_all


def test_paths_have_names_and_addresses_of_their_own() -> None:
    ends = [end for path in place_all([Path()] * MAX_PATHS) for end in (path.a, path.b)]
    assert len({end.address4 for end in ends}) == len({end.mac for end in ends}) == 2 * MAX_PATHS
    assert all(ipaddress.ip_address(end.address(6)).is_private for end in ends)
    assert all(len(end.device) <= 15 for end in ends)


def test_the_ends_of_a_path_are_neighbours() -> None:
    path = place(2, Path())
    assert (path.name, path.a.address(4), path.b.address(4)) == ("path2", "10.0.2.1", "10.0.2.2")
    assert path.b.address(6) == "fd00:0:0:2::2"


def test_the_queue_holds_one_bandwidth_delay_product_unless_told() -> None:
    assert Path(rate=100e6, rtt=0.050).queue_bytes == 625_000
    assert Path(rate=1e6, rtt=0.001).queue_bytes == 64 * 1024
    assert Path(queue=3000).queue_bytes == 3000


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": -1.0}, {"rtt": -0.1}, {"rtt": 11.0}])
def test_a_path_out_of_range_is_refused_with_the_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(EmptcpError, match=r"a path's .* is from .* to "):
        Path(**wrong)


@pytest.mark.parametrize("count", [0, MAX_PATHS + 1])
def test_a_lab_has_from_one_to_eight_paths(count: int) -> None:
    with pytest.raises(EmptcpError, match=f"not {count}"):
        place_all([Path()] * count)


def test_netem_gets_half_the_round_trip_and_room_for_what_is_in_flight() -> None:
    line = " ".join(netem(place(1, Path(rate=100e6, rtt=0.050))))
    assert line == "qdisc add dev path1 root netem delay 25000us rate 100000000bit limit 619"
