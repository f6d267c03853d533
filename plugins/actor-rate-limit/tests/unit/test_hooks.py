# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model
from emptcp.pybpf import features
from emptcp_actor_rate_limit import hooks
from emptcp_actor_rate_limit.hooks import emptcp_validate


def validate(actor: str, hooks: str = '["egress"]') -> None:
    table = file.loads(
        f"""
        table = "t"
        [[policy]]
        name = "p"
        hook = {hooks}
        dev = "eth0"
        do = ["{actor}"]
        """
    )
    (spec,) = model.actors(table, table.policies[0].do)
    emptcp_validate(Catalog.of_enabled().bind(spec), table.policies[0])


def test_pacing_is_per_subflow() -> None:
    with pytest.raises(EmptcpError, match="a rate is per subflow") as caught:
        validate("rate_limit(rate=1mbit, mode=pacing, per=dev)")
    assert caught.value.fix == "Write per=subflow, or mode=police."


def test_pacing_acts_on_what_leaves() -> None:
    with pytest.raises(EmptcpError, match="at hook 'egress'"):
        validate("rate_limit(rate=1mbit, mode=pacing)", '["ingress"]')


def test_pacing_is_refused_where_the_kernel_can_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "sock_ops")
    with pytest.raises(EmptcpError, match="needs what this kernel lacks: switched off") as caught:
        validate("rate_limit(rate=1mbit, mode=pacing)")
    assert caught.value.fix == "Write mode=police."


@pytest.mark.parametrize(
    ("actor", "sentence", "fix"),
    [
        ("mode=window", "since Linux 5.19", "Write per=connection, or mode=pacing."),
        ("mode=window, per=dev", "limits connections", "Write per=connection, or mode=police."),
        ("mode=window, per=policy", "limits connections", "Write per=connection, or mode=police."),
        ("mode=police, per=connection", "by the receive window", "Write mode=window."),
        ("mode=pacing, per=connection", "a rate is per subflow", "Write per=subflow, or mode=police."),
    ],
)
def test_what_does_not_go_together_is_refused(actor: str, sentence: str, fix: str) -> None:
    with pytest.raises(EmptcpError, match=sentence) as caught:
        validate(f"rate_limit(rate=1mbit, {actor})")
    assert caught.value.fix == fix


def test_before_linux_5_19_a_window_limits_a_subflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_kernel", lambda: (5, 18))
    validate("rate_limit(rate=1mbit, mode=window)")


@pytest.mark.parametrize("mode", ["auto", "window"])
def test_a_connection_is_limited_by_its_window(mode: str) -> None:
    validate(f"rate_limit(rate=1mbit, mode={mode}, per=connection)", '["ingress"]')


@pytest.mark.parametrize("mode", ["auto", "police", "mark"])
def test_the_other_modes_run_everywhere(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", ",".join(features.FEATURES))
    validate(f"rate_limit(rate=1mbit, mode={mode}, per=dev)", '["ingress", "egress"]')


@pytest.mark.parametrize("rate", ["0mbit", "7kbit", "10"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(EmptcpError, match="parameter 'rate'"):
        validate(f"rate_limit(rate={rate})")
