# SPDX-License-Identifier: Apache-2.0
"""What the guard's trials say of actors that make plain TCP of MPTCP connections, or break them, or not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import pins, running
from emptcp.chain.bind import bind
from emptcp.chain.description import Description
from emptcp.chain.dryrun import Runner
from emptcp.chain.lending import open_plugin_map
from emptcp.chain.spoiling import Spoilers
from emptcp.packet.build import build
from emptcp.packet.tcp import Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.policy import values
from emptcp.policy.file import loads
from emptcp_sdk.compiler import compile_source, find_compiler
from emptcp_sdk.testing import policy_file

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

# Takes an option off: the mapping of data, the keys on it, or what acknowledges without data. Or mappings of
# the connections that begin after a number of packets, as one does whose table has run full. Or writes in it.
STRIPS = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

struct seen {
	__u32 packets;
	__u32 late;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} given SEC(".maps");

static __always_inline bool is_late(struct seen *state)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&given, &key);

	if (!count)
		return false;
	*count += 1;
	if (!state->packets++)
		state->late = *count > 1000;
	return state->late;
}

EMPTCP_ACTOR_STATE(mark, pkt, struct mark, param, struct seen, state)
{
	if (param->number == 1 && pkt->parsed->payload_len)
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	if (param->number == 2 && pkt->parsed->payload_len)
		emptcp_remove_option(pkt, EMPTCP_MP_CAPABLE, EMPTCP_UNSAFE_DSS);
	if (param->number == 3 && emptcp_is_pure_ack(pkt))
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	if (param->number == 5 && pkt->parsed->payload_len)
		emptcp_rewrite_option(pkt, EMPTCP_DSS, 4, &param->number, 4, EMPTCP_UNSAFE_DSS);
	if (param->number == 4 && is_late(state))
		emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	return EMPTCP_NEXT;
}
"""
PLAIN = build(link="none", options=[Timestamps(7, 8)], payload=bytes(40))
LATE = """
table = "t"
[[policy]]
name = "late"
hook = "ingress"
dev = "left0"
do = ["mark(4)"]
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


@pytest.fixture
def tree(instance: None) -> Iterator[None]:
    """There are pins, as where a policy runs."""
    made = pins.open_or_make()
    yield
    made.root.rmdir()


def ends(spoilers: Spoilers, about: Description, packet: bytes) -> set[bool]:
    return {spoilers.ends_mptcp(about, about.policies[0], packet, leaves) for leaves in (True, False)}


def breaks(spoilers: Spoilers, about: Description, packet: bytes) -> set[bool]:
    return {spoilers.breaks_mptcp(about, about.policies[0], packet)}


def verdicts(
    catalog: Catalog, do: str, ask: Callable[[Spoilers, Description, bytes], set[bool]]
) -> set[bool]:
    """Return what trials say of an actor, everywhere, of IPv4 and IPv6."""
    said = set()
    for hook, backend, engine in PLACES:
        table = loads(policy_file(do, hook=hook))
        bound = bind(table, table.policies[0], hook, catalog, values.any_device)
        with (
            Runner([bound], hook, backend, engine=engine) as made,
            closing(Spoilers(catalog)) as spoilers,
        ):
            about = made.loaded.description
            for family in (4, 6):
                plain = build(link="none", family=family, options=[Timestamps(7, 8)], payload=bytes(40))  # type: ignore[arg-type]
                said |= ask(spoilers, about, plain)
    return said


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "do", ["mark(1)", "mark(2)", "mark(3)", "remove_option(option=dss, unsafe=true)"], ids=str
)
def test_who_takes_off_what_a_connection_is_known_by_ends_it_as_mptcp(catalog: Catalog, do: str) -> None:
    assert verdicts(catalog, do, ends) == {True}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "do", ["mark(4)", "remove_option(option=mp_capable, unsafe=true)", "remove_option(kind=30, unsafe=true)"]
)
def test_who_leaves_all_or_lets_no_connection_begin_as_mptcp_does_not(catalog: Catalog, do: str) -> None:
    assert verdicts(catalog, do, ends) == {False}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("do", ["mark(1)", "mark(3)", "mark(5)", "remove_option(kind=30, unsafe=true)"])
def test_who_takes_off_or_changes_a_dss_breaks_a_connection_that_is_there(catalog: Catalog, do: str) -> None:
    assert verdicts(catalog, do, breaks) == {True}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "do",
    [
        "mark(2)",
        "set_backup(on=true)",
        "remove_option(option=mp_prio)",
        "rate_limit(rate=8kbit, mode=police)",
        "add_option(exid=5)",
    ],
)
def test_who_leaves_the_dss_alone_breaks_none(catalog: Catalog, do: str) -> None:
    assert verdicts(catalog, do, breaks) == {False}


def test_what_an_actor_counted_so_far_may_make_it_do_so(
    catalog: Catalog, emptcp: Callable[..., Any], netns: Callable[[], str], write: Callable[[str], str]
) -> None:
    assert emptcp("apply", write(LATE), "--netns", netns()).code == 0
    with running.everything() as found, closing(Spoilers(catalog)) as before:
        (about,) = (one.description for one in found.values())
        assert not before.ends_mptcp(about, about.policies[0], PLAIN, leaves=False)
        counted = open_plugin_map("mark", "given")
        assert counted
        with counted, closing(Spoilers(catalog)) as after:
            counted.update(bytes(4), (1000).to_bytes(8, sys.byteorder))
            assert after.ends_mptcp(about, about.policies[0], PLAIN, leaves=False)
            assert counted.lookup(bytes(4)) == (1000).to_bytes(8, sys.byteorder)
