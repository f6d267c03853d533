# SPDX-License-Identifier: Apache-2.0
"""What sequence refuses before anything is loaded."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model
from emptcp_selector_sequence.hooks import emptcp_validate


def validate(when: str) -> None:
    text = f'table = "t"\n[[policy]]\nname = "p"\ndev = "x"\nhook = "ingress"\nwhen = "{when}"\n'
    table = file.loads(f"{text}do = [\"record('packets')\"]")
    (leaf,) = model.leaves(table.policies[0].when)
    assert isinstance(leaf, model.Select)
    emptcp_validate(Catalog.of_enabled().bind(leaf.stage), table.policies[0])


@pytest.mark.parametrize("bound", ["first", "last"])
def test_a_subflow_number_has_32_bits(bound: str) -> None:
    with pytest.raises(EmptcpError, match=f"{bound}=4294967296 is no subflow sequence number") as caught:
        validate(f"sequence(space=ssn, {bound}=4294967296)")
    assert caught.value.fix == "Write a number up to 4294967295, or space=dsn."


@pytest.mark.parametrize(
    "when",
    [
        "sequence(space=ssn)",
        "sequence(space=ssn, first=4294967295, last=4294967295)",
        "sequence(first=4294967296, last=18446744073709551615)",
        "sequence(first=0xffffffffffffffff, last=1, relative=false)",
        "packet_type('data')",
    ],
)
def test_what_there_is_is_taken(when: str) -> None:
    validate(when)


@pytest.mark.parametrize("wrong", ["first=-1", "last=18446744073709551616", "space=tcp", "relative=1"])
def test_what_is_no_number_of_64_bits_is_refused(wrong: str) -> None:
    with pytest.raises(EmptcpError, match=wrong.partition("=")[0]):
        validate(f"sequence({wrong})")
