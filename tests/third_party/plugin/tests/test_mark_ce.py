# SPDX-License-Identifier: Apache-2.0
"""mark_ce on single packets."""

import pytest

from emptcp_sdk.packets import Dss, build
from emptcp_sdk.testing import Row

ACK = Dss(data_ack=1)
ECT, CE = 2, 3

TABLE = [
    Row("a sender that understands ECN", build(tos=ECT, options=[ACK]), out=build(tos=CE, options=[ACK])),
    Row("one that does not", build(tos=0, options=[ACK])),
    Row("a packet that is marked", build(tos=CE, options=[ACK])),
    Row("IPv6", build(family=6, tos=ECT, options=[ACK]), reason="refused"),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_packets(row, run_packet):
    row.check(run_packet, "mark_ce(every=1)")


def test_one_in_so_many_of_a_subflow_is_marked(run_packet):
    packet, marked = build(tos=ECT, options=[ACK]), build(tos=CE, options=[ACK])
    out = [run_packet(packet, "mark_ce(every=3)").data for _ in range(6)]
    assert out == [packet, packet, marked] * 2
