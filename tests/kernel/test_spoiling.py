# SPDX-License-Identifier: Apache-2.0
"""What the guard's trial says of actors that make plain TCP of MPTCP connections, and of those that don't."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from emptcp.chain import pins
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.chain.spoiling import Spoilers
from emptcp.packet.build import build
from emptcp.packet.tcp import Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.policy import values
from emptcp.policy.file import loads
from emptcp_sdk.compiler import compile_source, find_compiler
from emptcp_sdk.testing import policy_file

pytestmark = pytest.mark.kernel

# Takes an option off: the mapping of data, the keys on it, or what acknowledges without data.
STRIPS = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{
	if (param->number == 1 && pkt->parsed->payload_len)
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	if (param->number == 2 && pkt->parsed->payload_len)
		emptcp_remove_option(pkt, EMPTCP_MP_CAPABLE, EMPTCP_UNSAFE_DSS);
	if (param->number == 3 && emptcp_is_pure_ack(pkt))
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	return EMPTCP_NEXT;
}
"""
PLACES = [
    (hook, backend, engine)
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
    for engine in ("fused", "tail")
]
"""Hook, back-end and engine."""


@pytest.fixture
def catalog(stranger: Callable[..., Path], emptcp: Callable[..., object]) -> Catalog:
    """All plugins, with the stranger's ``mark`` that strips."""
    package = stranger()
    source = package / "mark.bpf.c"
    source.write_text(STRIPS)
    compile_source(find_compiler(), source, package / "mark.bpf.o")
    manifest = package / "emptcp.toml"
    manifest.write_text(manifest.read_text().replace('"ingress"', '"ingress", "egress"'))
    emptcp("plugins", "enable", "mark")
    return Catalog.of_enabled()


def verdicts(catalog: Catalog, do: str) -> set[bool]:
    """Return what trials say of an actor, everywhere, both ways, of IPv4 and IPv6."""
    said = set()
    for hook, backend, engine in PLACES:
        table = loads(policy_file(do, hook=hook))
        bound = bind(table, table.policies[0], hook, catalog, values.any_device)
        with (
            Runner([bound], hook, backend, engine=engine) as running,
            closing(Spoilers(catalog)) as spoilers,
        ):
            about = running.loaded.description
            for family, leaves in itertools.product((4, 6), (True, False)):
                plain = build(link="none", family=family, options=[Timestamps(7, 8)], payload=bytes(40))  # type: ignore[arg-type]
                said.add(spoilers.ends_mptcp(about, about.policies[0], plain, leaves))
    return said


@pytest.mark.parametrize(
    "do", ["mark(1)", "mark(2)", "mark(3)", "remove_option(option=dss, unsafe=true)"], ids=str
)
def test_who_takes_off_what_a_connection_is_known_by_ends_it_as_mptcp(catalog: Catalog, do: str) -> None:
    assert pins.find()
    assert verdicts(catalog, do) == {True}


@pytest.mark.parametrize(
    "do", ["mark(4)", "remove_option(option=mp_capable, unsafe=true)", "remove_option(kind=30, unsafe=true)"]
)
def test_who_leaves_all_or_lets_no_connection_begin_as_mptcp_does_not(catalog: Catalog, do: str) -> None:
    assert verdicts(catalog, do) == {False}
