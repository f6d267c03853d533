# SPDX-License-Identifier: Apache-2.0
"""Sets and maps on both engines and back-ends: who is in, what a map tells, what counts as missing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.chain import lookups, storage, stores
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Result, Runner
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss
from emptcp.plugins import manifest
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.discovery import Plugin
from emptcp.policy import file

pytestmark = pytest.mark.kernel

SOURCE = """
#include <emptcp/actor.h>
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct subflow_key { struct emptcp_endpoint end[2]; };

EMPTCP_KEY(subflow, pkt, struct subflow_key, key)
{
	emptcp_write_endpoint(pkt, 0, &key->end[0]);
	emptcp_write_endpoint(pkt, 1, &key->end[1]);
	return true;
}

EMPTCP_KEY(source, pkt, struct emptcp_prefix_key, key)
{
	key->bits = 128;
	__builtin_memcpy(key->word, pkt->parsed->key.addr[emptcp_source(pkt)], sizeof(key->word));
	return true;
}

struct number { __u32 value; };

/* Packets to port 1 have none. */
EMPTCP_KEY(to_port, pkt, struct number, key)
{
	key->value = emptcp_port(pkt, emptcp_target(pkt));
	return key->value != 1;
}

/* The first packet of a flow has none. */
EMPTCP_KEY(old_flow, pkt, struct number, key)
{
	key->value = 7;
	return pkt->flow && pkt->flow->since;
}

struct small { __u16 number; __u8 low; __u8 on; };

EMPTCP_ACTOR(small, pkt, struct small, param)
{
	__be16 window = bpf_htons(param->number * 16 + param->low * 2 + param->on);

	emptcp_rewrite(pkt, pkt->parsed->l4 + 14, &window, 2);
	return EMPTCP_NEXT;
}

struct large { __u64 ahead[20]; __u64 number; __u64 second; __u64 behind[5]; };

EMPTCP_ACTOR(large, pkt, struct large, param)
{
	__be16 window = bpf_htons(param->number + param->second * 256);

	emptcp_rewrite(pkt, pkt->parsed->l4 + 14, &window, 2);
	return EMPTCP_NEXT;
}

struct at_least { __u32 bytes; };

EMPTCP_SELECTOR(payload, pkt, struct at_least, param) { return pkt->parsed->payload_len >= param->bytes; }

EMPTCP_ACTOR(drop, pkt, void, param) { return EMPTCP_DROP; }

char _license[] SEC("license") = "Dual BSD/GPL";
"""

MANIFEST = """
name = "test"
object = "sets.bpf.o"
[[key]]
name = "subflow"
fields = ["endpoint", "endpoint"]
symmetric = true
[[key]]
name = "source"
fields = ["prefix"]
[[key]]
name = "to_port"
fields = ["int"]
[[key]]
name = "old_flow"
fields = ["int"]
reads = ["key", "flow"]
[[actor]]
name = "small"
hooks = ["ingress", "egress"]
parameter = [{name = "number", type = "int"}, {name = "low", type = "int", default = 1},
             {name = "on", type = "bool", default = true}]
[[actor]]
name = "large"
hooks = ["ingress", "egress"]
parameter = [{name = "number", type = "int"}, {name = "second", type = "int", default = 0},
             {name = "ahead", type = "list(20)"}, {name = "behind", type = "list(5)"}]
[[selector]]
name = "payload"
hooks = ["ingress", "egress"]
parameter = [{name = "bytes", type = "size"}]
[[actor]]
name = "drop"
hooks = ["ingress", "egress"]
verdicts = ["DROP"]
"""

FILE = """
table = "t"
[[policy]]
name = "p"
hook = "ingress"
dev = "x"
{when}
do = [{do}]
[chain.shared]
do = ["small(number=subflow @numbers)", "large(number=7)"]
[set.bulk]
key = "subflow"
entries = ["10.0.0.2:80-10.0.0.1:4000", "[fd00::1]:4000-[fd00::2]:80"]
[set.nets]
key = "source"
entries = ["10.0.0.0/8", "fd00::/64"]
[set.ports]
key = "to_port"
[set.flows]
key = "old_flow"
entries = ["7"]
[map.numbers]
key = "subflow"
type = "int"
entries = {{ "10.0.0.1:4000-10.0.0.2:80" = 900, "[fd00::1]:4000-[fd00::2]:80" = "0x384" }}
[map.by_net]
key = "source"
type = "int"
entries = {{ "10.0.0.0/8" = 8, "10.1.0.0/16" = 16, "10.1.2.3" = 128, "0.0.0.0/0" = 1 }}
[map.flags]
key = "to_port"
type = "bool"
entries = {{ "80" = "false" }}
[map.sizes]
key = "to_port"
type = "size"
entries = {{ "80" = "2b" }}
"""

PLACES = [("fused", "xdp"), ("fused", "tc"), ("tail", "xdp"), ("tail", "tc")]
OPTION = Dss(data_ack=7)


def packet(
    src: str = "10.0.0.1", dst: str = "10.0.0.2", sport: int = 4000, dport: int = 80, payload: bytes = b""
) -> bytes:
    family = 6 if ":" in src else 4
    dss = Dss(data_ack=7, dsn=7, subflow_seq=1, data_length=len(payload)) if payload else OPTION
    return build(
        family=family, src=src, dst=dst, sport=sport, dport=dport, options=[dss], payload=payload, window=1000
    )  # fmt: skip


THERE, BACK = packet(), packet("10.0.0.2", "10.0.0.1", 80, 4000)
SIX, SIX_BACK = packet("fd00::1", "fd00::2"), packet("fd00::2", "fd00::1", 80, 4000)
OTHER = packet(sport=4001)


@pytest.fixture(scope="module")
def catalog(compile_bpf: Callable[[str, str], Path]) -> Catalog:
    folder = compile_bpf(SOURCE, "sets").parent
    plugin = Plugin("test", "test", "1", "test", folder, manifest.loads(MANIFEST), "enabled")
    return Catalog([plugin])


Make = Callable[..., Runner]


@pytest.fixture(params=PLACES, ids=["-".join(place) for place in PLACES])
def make(request: pytest.FixtureRequest, catalog: Catalog) -> Iterator[Make]:
    """Make a policy on each engine and back-end: actors, ``when``, what sets and maps hold."""
    engine, backend = request.param
    with ExitStack() as made:

        def runner(
            *do: str,
            when: str = "",
            contents: Callable[[Store], Mapping[bytes, bytes]] = stores.listed,
        ) -> Runner:
            chain = ", ".join(f'"{actor}"' for actor in do or ("drop",))
            text = FILE.format(when=f'when = "{when}"' if when else "", do=chain)
            table = file.loads(text)
            bound = bind(table, table.policies[0], "ingress", catalog)
            return made.enter_context(Runner([bound], backend=backend, engine=engine, contents=contents))

        yield runner


def window(result: Result) -> int:
    assert decode(result.data).tcp is not None
    return decode(result.data).tcp.window


@pytest.mark.parametrize("data", [THERE, BACK, SIX, SIX_BACK])
def test_a_member_matches_in_both_directions_and_families(make: Make, data: bytes) -> None:
    assert make(when="subflow in @bulk").run(data).verdict == "drop"


@pytest.mark.parametrize("data", [OTHER, packet(dst="10.0.0.3"), packet(sport=80, dport=4000)])
def test_what_is_not_in_the_set_does_not_match(make: Make, data: bytes) -> None:
    result = make(when="subflow in @bulk").run(data)
    assert result.verdict == "pass"
    assert (result.counts["t/p/@bulk"].packets, result.counts["t/p/@bulk"].matches) == (1, 0)
    assert result.reason is None


def test_entries_count_until_they_expire(make: Make) -> None:
    runner = make(when="subflow in @bulk")
    kept = runner.store("set", "bulk")
    (key, other) = [key for key, _ in kept.items()]
    assert runner.run(THERE).verdict == runner.run(SIX).verdict == "drop"
    for one in (key, other):
        kept.update(one, storage.entry(b"", 1))
    assert runner.run(THERE).verdict == runner.run(SIX).verdict == "pass"
    for one in (key, other):
        kept.update(one, storage.entry(b"", stores.now() + 10**12))
    assert runner.run(THERE).verdict == runner.run(SIX).verdict == "drop"


def test_a_set_can_be_changed_while_the_program_runs(make: Make) -> None:
    runner = make(when="to_port in @ports")
    assert runner.run(THERE).verdict == "pass"
    runner.store("set", "ports").update(struct.pack("=I", 80), storage.entry(b"", 0))
    assert runner.run(THERE).verdict == "drop"
    assert runner.run(BACK).verdict == "pass"


def test_a_packet_without_a_key_is_in_no_set(make: Make) -> None:
    runner = make(when="not to_port in @ports")
    kept = runner.store("set", "ports")
    kept.update(struct.pack("=I", 1), storage.entry(b"", 0))
    assert runner.run(packet(dport=1)).verdict == "drop"
    kept.update(struct.pack("=I", 80), storage.entry(b"", 0))
    assert runner.run(THERE).verdict == "pass"


@pytest.mark.parametrize(
    ("when", "verdicts"),
    [
        ("not subflow in @bulk", "pass drop"),
        ("subflow in @bulk and source in @nets", "drop pass"),
        ("subflow in @bulk or payload(bytes=0)", "drop drop"),
        ("not (subflow in @bulk or to_port in @ports) and payload(bytes=0)", "pass drop"),
        ("payload(bytes=1) or subflow in @bulk", "drop pass"),
        ("payload(bytes=1) and subflow in @bulk", "pass pass"),
    ],
)
def test_sets_are_joined_with_selectors(make: Make, when: str, verdicts: str) -> None:
    runner = make(when=when)
    assert f"{runner.run(THERE).verdict} {runner.run(OTHER).verdict}" == verdicts


def test_a_prefix_set_holds_every_address_below_its_prefixes(make: Make) -> None:
    runner = make(when="source in @nets")
    for source in ("10.0.0.1", "10.255.255.255", "fd00::ffff"):
        assert runner.run(packet(source, "fd00::2" if ":" in source else "10.0.0.2")).verdict == "drop"
    for source in ("11.0.0.1", "fd00:0:0:1::1", "::a00:1"):
        assert runner.run(packet(source, "fd00::2" if ":" in source else "10.0.0.2")).verdict == "pass"


@pytest.mark.parametrize(
    ("source", "number"), [("10.9.9.9", 8), ("10.1.9.9", 16), ("10.1.2.3", 128), ("192.0.2.1", 1)]
)
def test_the_longest_prefix_tells_the_value(make: Make, source: str, number: int) -> None:
    assert window(make("small(number=source @by_net)").run(packet(source))) == number * 16 + 3


@pytest.mark.parametrize("data", [THERE, BACK, SIX, SIX_BACK])
def test_a_map_tells_a_small_struct_its_value(make: Make, data: bytes) -> None:
    runner = make("small(number=subflow @numbers, low=3)")
    assert window(runner.run(data)) == 900 * 16 + 3 * 2 + 1


@pytest.mark.parametrize("data", [THERE, BACK, SIX, SIX_BACK])
def test_a_map_tells_a_large_struct_its_value(make: Make, data: bytes) -> None:
    runner = make("large(number=subflow @numbers, ahead=[1, 2], behind=[3])")
    assert window(runner.run(data)) == 900


def test_several_values_of_one_stage_come_from_maps(make: Make) -> None:
    runner = make("small(number=subflow @numbers, low=2, on=to_port @flags)")
    assert window(runner.run(THERE)) == 900 * 16 + 4
    assert window(runner.run(BACK)) == 1000  # no entry for port 4000


def test_without_an_entry_the_stage_is_skipped_and_the_chain_goes_on(make: Make) -> None:
    runner = make("small(number=subflow @numbers)", "large(number=7)")
    assert window(runner.run(THERE)) == 7
    result = runner.run(OTHER)
    assert window(result) == 7
    assert result.counts["t/p/small"].reasons == {"no_value": 1}
    assert result.counts["t/p/small"].packets == 1
    assert result.counts["t/p/large"].packets == 1


def test_a_named_chain_reads_maps_too(make: Make) -> None:
    runner = make("goto shared", when="source in @nets")
    assert window(runner.run(THERE)) == 7
    result = runner.run(OTHER)
    assert (window(result), result.reason) == (7, "no_value")
    assert result.counts["t/@shared/small"].reasons == {"no_value": 1}


def test_an_expired_value_counts_as_missing(make: Make) -> None:
    runner = make("small(number=subflow @numbers)")
    kept = runner.store("map", "numbers")
    for key, value in list(kept.items()):
        kept.update(key, storage.entry(storage.says(value), stores.now() - 1))
    result = runner.run(THERE)
    assert (window(result), result.reason) == (1000, "no_value")


def test_a_selector_without_a_value_does_not_match(make: Make) -> None:
    runner = make(when="payload(bytes=to_port @sizes)")
    assert runner.run(packet(payload=b"abc")).verdict == "drop"
    assert runner.run(packet(payload=b"a")).verdict == "pass"
    result = runner.run(packet(dport=81, payload=b"abc"))
    assert (result.verdict, result.reason) == ("pass", "no_value")
    assert make(when="not payload(to_port @sizes)").run(packet(dport=81, payload=b"abc")).verdict == "drop"


def test_values_written_from_maps_do_not_reach_other_packets_or_stages(make: Make) -> None:
    runner = make("large(number=subflow @numbers)", "small(number=1)", when="payload(bytes=0)")
    assert window(runner.run(THERE)) == window(runner.run(OTHER)) == 19
    alone = make("large(number=subflow @numbers, second=0)")
    assert window(alone.run(THERE)) == 900
    assert window(alone.run(OTHER)) == 1000


def test_a_key_may_depend_on_the_flow(make: Make) -> None:
    runner = make(when="old_flow in @flows")
    assert runner.run(THERE).verdict == "drop"


ENDS = st.tuples(st.integers(1, 254), st.integers(1, 3), st.integers(1, 65535))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.tuples(ENDS, ENDS, st.booleans()), min_size=1, max_size=20), six=st.booleans())
def test_the_kernel_agrees_with_a_python_set(
    make: Make, data: list[tuple[tuple[int, ...], tuple[int, ...], bool]], six: bool
) -> None:
    runner = make(when="subflow in @bulk")
    kept = runner.store("set", "bulk")
    kept.delete_batch([key for key, _ in kept.items()])
    (found,) = (store for store in runner._plan.stores)
    model: set[frozenset[str]] = set()
    for low, high, member in data:
        ends = [_end(low, six), _end(high, six)]
        if member:
            kept.update(found.key_of("-".join(map(_written, ends))), storage.entry(b"", 0))
            model.add(frozenset(map(_written, ends)))
    for low, high, _ in data:
        (src, sport), (dst, dport) = _end(low, six), _end(high, six)
        wanted = frozenset({_written((src, sport)), _written((dst, dport))}) in model
        assert (runner.run(packet(src, dst, sport, dport)).verdict == "drop") == wanted
        assert (runner.run(packet(dst, src, dport, sport)).verdict == "drop") == wanted


def _end(end: tuple[int, ...], six: bool) -> tuple[str, int]:
    address = f"fd00::{end[1]:x}:{end[0]:x}" if six else f"10.0.{end[1]}.{end[0]}"
    return address, end[2]


def _written(end: tuple[str, int]) -> str:
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "do = [",
            'do = ["small(number=to_port @numbers)", ',
            "map 'numbers' has key 'subflow', not 'to_port'",
        ),
        ("do = [", 'do = ["small(on=subflow @numbers)", ', "has values of type int, and parameter 'on'"),
        ("do = [", 'do = ["large(ahead=subflow @numbers)", ', "a list can't be read from a map"),
        ("do = [", 'do = ["small(number=source @by_net)", ', "holds prefixes, of which none can expire"),
        ("do = [", 'do = ["small(number=subflow @numbers)", ', "'10.0.0.1' is no such key"),
    ],
)
def test_what_a_map_can_not_tell_is_refused(catalog: Catalog, old: str, new: str, sentence: str) -> None:
    text = FILE.format(when="", do='"drop"').replace(old, new)
    text = text.replace("[map.by_net]\n", "[map.by_net]\ntimeout = '1s'\n")
    text = text.replace(
        '"10.0.0.1:4000-10.0.0.2:80" = 900', '"10.0.0.1" = 900' if "such key" in sentence else ""
    )
    text = text.replace("{ ,", "{")
    table = file.loads(text)
    with pytest.raises(EmptcpError) as caught:
        bind(table, table.policies[0], "ingress", catalog)
    assert sentence in str(caught.value)


def test_parameters_that_read_one_map_must_agree(catalog: Catalog) -> None:
    both = '"small(number=subflow @numbers)", "large(number=subflow @numbers)"'
    table = file.loads(FILE.format(when="", do=both))
    with pytest.raises(EmptcpError) as caught:
        lookups.everything(table, catalog)
    assert str(caught.value) == (
        "line 8, column 42: map 'numbers' is read by parameter 'number' of actor 'small' and by parameter "
        "'number' of actor 'large', which differ in bytes of their struct's member\n"
        "Give each a map of its own."
    )
    alone = file.loads(FILE.format(when='when = "subflow in @bulk"', do='"small(number=subflow @numbers)"'))
    found = {(store.kind, store.name) for store in lookups.everything(alone, catalog)}
    sets = {("set", name) for name in ("bulk", "nets", "ports", "flows")}
    assert found == sets | {("map", "numbers")}
