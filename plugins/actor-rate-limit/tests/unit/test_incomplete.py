# SPDX-License-Identifier: Apache-2.0
"""Which subflows are refused, against what the rule says of each connection."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from emptcp.api import Subflow
from emptcp_actor_rate_limit.parted import incomplete

ESTABLISHED, SYN_SENT = 1, 2


def subflow(number: int, token: int, state: int, joining: bool) -> Subflow:
    ends = ip_address("10.0.0.1"), number, ip_address("10.0.0.2"), 80
    ids, bits, numbers = (0, 0), (False, False, True), (0,) * 8
    return Subflow(*ends, state, token, *ids, *bits, *numbers[:7], 0.0, 0, 0, 0, 0, joining=joining)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),  # the connection
            st.sampled_from([ESTABLISHED, ESTABLISHED, SYN_SENT]),
            st.booleans(),  # joining
            st.booleans(),  # selected, if it is open
            st.integers(1, 2),  # on how many devices it was found
        ),
        max_size=12,
    )
)
def test_a_connection_is_refused_as_a_whole_or_not_at_all(
    drawn: list[tuple[int, int, bool, bool, int]],
) -> None:
    here, chosen = [], []
    for number, (token, state, joining, selected, devices) in enumerate(drawn):
        one = subflow(number, token, state, joining)
        here.append(one)
        chosen += [one] * devices if selected and one.open else []
    refused = incomplete(here, chosen)
    for token in range(1, 5):
        open_ones = [one for one in here if one.token == token and one.open]
        passing = [one for one in open_ones if one in chosen]
        whole = len(passing) == len(open_ones)
        assert [one for one in refused if one.token == token] == ([] if whole else passing)
