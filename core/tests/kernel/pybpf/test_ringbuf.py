# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import select
import struct

import pytest

from emptcp.pybpf import BpfError, Map, RingBuffer, features, load_object

pytestmark = pytest.mark.kernel

SENDER = """
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
SEC("xdp") int send(struct xdp_md *ctx)
{
	__u64 size = ctx->data_end - ctx->data;

	return bpf_ringbuf_output(&events, &size, sizeof(size), 0) ? 0 : 2;
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture
def loaded(compile_bpf):
    if not features.has("ringbuf"):
        pytest.skip(features.reason("ringbuf"))
    with load_object(compile_bpf(SENDER, "sender")) as found:
        yield found


def test_records_arrive_in_order(loaded) -> None:
    heard: list[bytes] = []
    with RingBuffer(loaded.maps["events"], heard.append) as ring:
        assert ring.poll(0) == 0
        for size in (64, 70, 80):
            assert loaded.programs["send"].test_run(bytes(size)).retval == 2
        assert select.select([ring.fd], [], [], 5)[0]
        assert ring.poll(1000) == 3
    assert [struct.unpack("=Q", record)[0] for record in heard] == [64, 70, 80]


def test_what_the_callback_raises_is_raised(loaded) -> None:
    def refuse(record: bytes) -> None:
        raise ValueError(len(record))

    with RingBuffer(loaded.maps["events"], refuse) as ring:
        loaded.programs["send"].test_run(bytes(64))
        with pytest.raises(ValueError, match="8"):
            ring.poll(1000)
        assert ring.poll(0) == 0


def test_a_map_of_another_kind_is_refused() -> None:
    other = Map.create("array", 4, 4, 1, name="array")
    with other, pytest.raises(BpfError, match="cannot read the map 'array' as a ring buffer"):
        RingBuffer(other, print)


def test_a_closed_ring_says_so(loaded) -> None:
    ring = RingBuffer(loaded.maps["events"], print)
    ring.close()
    ring.close()
    with pytest.raises(BpfError, match="was closed"):
        ring.poll(0)
