# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path

import pytest

from emptcp import pybpf
from emptcp.hooks import attach, devices, namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.packet.build import build
from emptcp.pybpf import BpfError, Program, Statistics, VerifierError, features, load_btf, load_program
from emptcp.pybpf.assembly import EXIT, answer, instruction

pytestmark = pytest.mark.kernel

XDP_DROP, XDP_PASS = 1, 2
TC_ACT_UNSPEC = -1
# r0 = *(u32 *)(ctx + 12); exit: the ingress_ifindex of struct xdp_md
INGRESS = instruction(0x61, 0, 1, offset=12) + EXIT


def test_a_program_is_loaded_named_and_described() -> None:
    with load_program("xdp", answer(XDP_PASS), name="two words!") as program:
        info = program.info
        assert (info.kind, info.name, info.instructions) == ("xdp", "two_words_", 2)
        assert info.id == program.id
        assert len(info.tag) == 16
        assert info.verified_instructions == 2
        with Program.from_id(program.id) as again:
            assert again.info.tag == info.tag


def test_a_test_run_gives_answer_packet_and_time() -> None:
    packet = bytes(range(64))
    with load_program("xdp", answer(XDP_DROP)) as program:
        run = program.test_run(packet, repeat=100)
    assert (run.retval, run.data) == (XDP_DROP, packet)
    assert run.duration_ns >= 0


def test_runs_and_their_time_are_counted_while_statistics_are_on(host: Namespace) -> None:
    device = devices.find(host, "lo")
    with load_program("sched_cls", answer(TC_ACT_UNSPEC)) as program:
        attached = attach.attach(host, device, "ingress", "tc", program)
        try:
            _say_something(host)
            assert program.info.run_count == 0
            with Statistics.switch_on():
                _say_something(host)
            info = program.info
            assert info.run_count >= 1
            assert info.run_time > 0
        finally:
            attached.detach()


def _say_something(host: Namespace) -> None:
    def say() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("127.0.0.1", 9))

    namespaces.call(host, say)


def test_a_context_goes_in_and_comes_out(host: Namespace) -> None:
    context = struct.pack("=6I", 0, 64, 0, 1, 0, 0)
    with load_program("xdp", INGRESS) as program:
        run = namespaces.call(host, lambda: program.test_run(bytes(64), ctx=context))
    assert run.retval == 1
    assert run.ctx == context


def test_a_tc_program_runs_with_its_context() -> None:
    mark = 7
    # r0 = ctx->mark; ctx->mark = 9
    code = instruction(0x61, 0, 1, offset=8) + instruction(0x62, 1, offset=8, value=9) + EXIT
    context = struct.pack("=3I", 0, 0, mark).ljust(192, b"\0")
    with load_program("sched_cls", code) as program:
        run = program.test_run(build(), ctx=context)
    assert run.retval == mark
    assert struct.unpack_from("=I", run.ctx, 8) == (9,)


def test_a_packet_the_kernel_does_not_take_is_an_error() -> None:
    with (
        load_program("xdp", answer(2)) as program,
        pytest.raises(BpfError, match=r"cannot test-run .* 3 bytes"),
    ):
        program.test_run(bytes(3))


def test_live_frames_reach_a_socket(host: Namespace) -> None:
    if not features.has("live_frames"):
        pytest.skip(features.reason("live_frames"))
    for command in ("addr add 10.9.0.1/24 dev left", "link set left up", "link set right up"):
        subprocess.run(["ip", "-n", host.name, *command.split()], check=True, timeout=10)
    left = devices.find(host, "left")
    frame = bytes.fromhex(left.address.replace(":", "")) + bytes(6) + b"\x08\x00" + _udp(b"hello")
    context = struct.pack("=6I", 0, len(frame), 0, left.ifindex, 0, 0)

    def deliver() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("10.9.0.1", 4000))
            receiver.settimeout(5)
            with load_program("xdp", answer(XDP_PASS)) as program:
                program.test_run(frame, ctx=context, live_frames=True, batch_size=1)
            return receiver.recv(100)

    assert namespaces.call(host, deliver) == b"hello"


def _udp(payload: bytes) -> bytes:
    """Return a packet 10.9.0.2:5000 -> 10.9.0.1:4000, without UDP's checksum, which is optional."""
    udp = struct.pack("!4H", 5000, 4000, 8 + len(payload), 0) + payload
    addresses = (socket.inet_aton("10.9.0.2"), socket.inet_aton("10.9.0.1"))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *addresses)
    words = sum(struct.unpack("!10H", head))
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + udp


def test_a_rejected_program_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    lines = [pybpf.Line(0, "plugin.bpf.c", "return *(__u32 *)(long)ctx->data_end;", 12, 2)]
    bad = instruction(0x61, 0, 1) + instruction(0x61, 0, 0) + EXIT
    with pytest.raises(VerifierError) as caught:
        load_program("xdp", bad, name="bad", lines=lines)
    error = caught.value
    assert error.where == "plugin.bpf.c:12"
    assert "the verifier refuses the xdp program 'bad': R0 offset is outside of the packet" in str(error)
    assert len(str(error).splitlines()) <= 6
    assert error.explanation.instruction == 1
    assert "processed 2 insns" in error.log
    assert error.log_file == tmp_path / "verifier-bad.log"
    assert error.log_file.read_text() == error.log


def test_a_rejection_leaves_no_file_when_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    with pytest.raises(VerifierError) as caught:
        load_program("xdp", EXIT, name="bad", write_log=False)
    assert caught.value.log_file is None
    assert list(tmp_path.iterdir()) == []


def test_btf_can_be_loaded_and_read_back(compile_bpf) -> None:
    data = pybpf.ObjectSpec.read(
        compile_bpf(
            'struct kept { __u32 a; }; SEC("xdp") int use(struct kept *kept) { return kept->a; }', "kept"
        )
    ).btf.data
    with load_btf(data) as loaded:
        types = loaded.types()
        assert [m.name for m in types.members(types.find("kept", "struct").id)] == ["a"]


def test_btf_the_kernel_refuses_says_why() -> None:
    with pytest.raises(BpfError, match=r"the kernel refuses the BTF: .*Invalid magic"):
        load_btf(bytes(24))


def test_a_program_is_pinned_and_found_again(bpffs: Path) -> None:
    with load_program("xdp", answer(2), name="kept") as program:
        program.pin(bpffs / "kept")
        number = program.id
    with Program.from_pin(bpffs / "kept") as again:
        assert (again.id, again.info.name) == (number, "kept")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(BpfError, match="cannot open the program with id 4294967294"):
        Program.from_id(4294967294)
