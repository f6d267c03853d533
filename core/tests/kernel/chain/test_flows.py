# SPDX-License-Identifier: Apache-2.0
"""The flow table from user space: a plugin's slot is written, and nothing else of an entry."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from emptcp import pybpf
from emptcp.chain import flows
from emptcp.chain.shared import FLOWS, HEAD_BYTES, KEY_BYTES, SLOT_BYTES
from emptcp_sdk.compiler import compile_source, find_compiler

pytestmark = pytest.mark.kernel

ONE, OTHER = (ip_address("10.0.0.1"), 5001), (ip_address("10.0.0.2"), 443)
COUNTER = """
#include <emptcp/bpf.h>
#include <emptcp/flow.h>

SEC("xdp")
int count(struct xdp_md *ctx)
{
	struct emptcp_flow_entry *entry;
	struct emptcp_key *key = (void *)(long)ctx->data;

	if ((void *)(key + 1) > (void *)(long)ctx->data_end)
		return 0;
	entry = bpf_map_lookup_elem(&emptcp_flows, key);
	if (!entry)
		return 0;
	entry->head.since++;
	(*(volatile __u64 *)(entry->slots + %d))++;
	(*(volatile __u64 *)(entry->slots + %d))++;
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
OFFSET, SIZE = 16, 12
AROUND = (OFFSET - 8, OFFSET + 16)
RUNS, ROUNDS = 100_000, 20


@pytest.fixture
def table() -> Iterator[pybpf.Map]:
    with pybpf.Map.create("lru_hash", KEY_BYTES, HEAD_BYTES + SLOT_BYTES, FLOWS, name="emptcp_flows") as made:
        yield made


@pytest.fixture
def counter(tmp_path: Path, table: pybpf.Map) -> Iterator[pybpf.Program]:
    """A program that counts in the head of a packet's flow, and in the slots next to OFFSET."""
    source = tmp_path / "count.bpf.c"
    source.write_text(COUNTER % AROUND)
    compile_source(find_compiler(), source, tmp_path / "count.bpf.o")
    with pybpf.load_object(tmp_path / "count.bpf.o", {"emptcp_flows": table}) as loaded:
        yield loaded.programs["count"]


def test_a_slot_is_read_as_it_was_written_in_either_order_of_the_ends(table: pybpf.Map) -> None:
    states = flows.States(table, OFFSET, SIZE)
    assert states.get(ONE, OTHER) is None
    states.put(ONE, OTHER, b"twelve bytes")
    assert states.get(OTHER, ONE) == b"twelve bytes"
    states.put(OTHER, ONE, b"short")
    assert states.get(ONE, OTHER) == b"short\0\0\0ytes"
    states.put(OTHER, ONE, b"end", at=8)
    assert states.get(ONE, OTHER) == b"short\0\0\0end\0"
    with pytest.raises(ValueError, match="13 bytes at 0 are not within a slot of 12"):
        states.put(ONE, OTHER, bytes(13))
    with pytest.raises(ValueError, match="1 bytes at 4 are not within"):
        states.put(ONE, OTHER, b"x", at=4)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, SLOT_BYTES), (8, 192), (SLOT_BYTES - 8, 8)])
def test_only_the_slots_bytes_are_written(table: pybpf.Map, offset: int, size: int) -> None:
    whole = bytes(n % 251 for n in range(HEAD_BYTES + SLOT_BYTES))
    table.update(flows.key(ONE, OTHER), whole)
    flows.States(table, offset, size).put(ONE, OTHER, b"\xff" * size)
    start, rest = HEAD_BYTES + offset, (size + 7) // 8 * 8
    value = table.lookup(flows.key(ONE, OTHER))
    assert value == whole[:start] + (b"\xff" * size).ljust(rest, b"\0") + whole[start + rest :]


def test_nothing_that_programs_count_meanwhile_is_lost_or_goes_back(
    table: pybpf.Map, counter: pybpf.Program
) -> None:
    states, flow = flows.States(table, OFFSET, SIZE), flows.key(ONE, OTHER)
    states.put(ONE, OTHER, bytes(SIZE))
    counting = threading.Thread(
        target=lambda: [counter.test_run(flow, repeat=RUNS) for _ in range(ROUNDS)], daemon=True
    )
    counting.start()
    written, earlier = 0, [0, 0, 0]
    while counting.is_alive():
        written += 1
        states.put(ONE, OTHER, struct.pack("=QI", written, written))
        assert states.get(ONE, OTHER) == struct.pack("=QI", written, written)
        now = counts(table, flow)
        assert all(after >= before for before, after in zip(earlier, now, strict=True))
        earlier = now
    assert written > 10
    assert counts(table, flow) == [RUNS * ROUNDS] * 3


def counts(table: pybpf.Map, flow: bytes) -> list[int]:
    """Return what the program counted: in the head, before and behind the slot."""
    value = table.lookup(flow)
    assert value is not None
    return [struct.unpack_from("=Q", value, place)[0] for place in (0, *(HEAD_BYTES + n for n in AROUND))]


def test_subflows_that_programs_saw_are_listed_with_the_plugins_slot(table: pybpf.Map) -> None:
    states = flows.States(table, OFFSET, SIZE)
    table.update(flows.key(ONE, (OTHER[0], 80)), bytes(HEAD_BYTES + SLOT_BYTES))  # plain TCP
    assert list(states.items()) == []
    states.put(ONE, OTHER, b"twelve bytes")
    assert list(states.items()) == [((ONE, OTHER), b"twelve bytes")]
