# SPDX-License-Identifier: Apache-2.0
"""What sample refuses before anything is loaded."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model

WRONG = ["every=0", "every=-1", "share=101%", "share=0.5", "seed=-1", "seed=4294967296"]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused(wrong: str) -> None:
    text = f'table = "t"\n[[policy]]\nname = "p"\ndev = "x"\nhook = "ingress"\nwhen = "sample({wrong})"\n'
    (leaf,) = model.leaves(file.loads(f"{text}do = [\"record('packets')\"]").policies[0].when)
    assert isinstance(leaf, model.Select)
    with pytest.raises(EmptcpError, match=wrong.partition("=")[0]):
        Catalog.of_enabled().bind(leaf.stage)
