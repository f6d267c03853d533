# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import sock_ops
from emptcp.pybpf import features, load_object, load_program
from emptcp.pybpf.assembly import answer
from emptcp.pybpf.kinds import ATTACH

pytestmark = pytest.mark.kernel


def program(number: int = 1):
    return load_program("sock_ops", answer(number), expected_attach_type=ATTACH["cgroup_sock_ops"])


def need() -> None:
    if not features.has("sock_ops"):
        pytest.skip(features.reason("sock_ops"))


COUNTER = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");
SEC("sockops") int count(void *ctx)
{
	__u32 key = 0;
	__u64 *events = bpf_map_lookup_elem(&seen, &key);
	if (events)
		__sync_fetch_and_add(events, 1);
	return 1;
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


def test_the_root_of_cgroup_v2_is_found() -> None:
    assert (sock_ops.root_cgroup() / "cgroup.controllers").exists()


def test_socket_events_of_this_process_reach_the_program(compile_bpf) -> None:
    need()
    import socket

    with load_object(compile_bpf(COUNTER, "counter")) as loaded:
        with sock_ops.attach(loaded.programs["count"]), socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        events = int.from_bytes(loaded.maps["seen"].lookup(bytes(4)) or b"", "little")
    assert events >= 3


def test_a_program_is_switched_in_its_place() -> None:
    need()
    with program() as first, program() as second, sock_ops.attach(first) as link:
        assert sock_ops.attach(second, link) is link
        assert link.info.program_id == second.id


def test_without_cgroup_v2_the_error_says_how_to_mount_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need()
    (tmp_path / "mountinfo").write_text("36 35 0:27 / /proc rw - proc proc rw\n")
    monkeypatch.setattr(sock_ops, "_MOUNTS", tmp_path / "mountinfo")
    with program() as loaded, pytest.raises(EmptcpError, match="cgroup v2 tree is not mounted") as caught:
        sock_ops.attach(loaded)
    assert "mount -t cgroup2" in caught.value.fix


def test_a_program_of_another_kind_is_refused() -> None:
    need()
    with (
        load_program("xdp", answer(2)) as other,
        pytest.raises(EmptcpError, match="the root cgroup: cannot attach"),
    ):
        sock_ops.attach(other)
