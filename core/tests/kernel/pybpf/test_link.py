# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emptcp.hooks import devices, namespaces, sock_ops
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import BpfError, Link, Program, features, load_object, load_program
from emptcp.pybpf.assembly import answer
from emptcp.pybpf.kinds import ATTACH

pytestmark = pytest.mark.kernel


def need(feature: str) -> None:
    if not features.has(feature):
        pytest.skip(features.reason(feature))


def xdp(number: int = 2) -> Program:
    return load_program("xdp", answer(number), name=f"xdp{number}")


def tc() -> Program:
    return load_program("sched_cls", answer(-1), name="tc")


@pytest.fixture
def attach(host: Namespace) -> Callable[..., Link]:
    """Return a function that attaches to the device ``left`` inside the namespace."""
    left = devices.find(host, "left").ifindex

    def attached(how: Callable[..., Link], program: Program, **options: object) -> Link:
        return namespaces.call(host, lambda: how(program, left, **options))

    return attached


def test_an_xdp_link_is_described_switched_and_ended(attach, host: Namespace) -> None:
    need("xdp_link")
    with xdp(2) as first, xdp(1) as second, attach(Link.attach_xdp, first) as link:
        assert (link.info.kind, link.info.program_id) == ("xdp", first.id)
        assert link.info.ifindex == devices.find(host, "left").ifindex
        link.update(second, first)
        assert link.info.program_id == second.id
        link.detach()
        assert link.info.ifindex == 0
        assert devices.find(host, "left").xdp == ()


def test_a_switch_expects_the_program_it_replaces(attach) -> None:
    need("xdp_link")
    with xdp(2) as first, xdp(1) as second, attach(Link.attach_xdp, first) as link:
        with pytest.raises(BpfError, match="switched to another program meanwhile"):
            link.update(first, second)
        assert link.info.program_id == first.id


def test_generic_xdp_is_attached_when_asked_for(attach, host: Namespace) -> None:
    need("xdp_link")
    with xdp() as program, attach(Link.attach_xdp, program, native=False):
        assert devices.find(host, "left").xdp == (("generic", program.id),)


def test_a_second_xdp_link_is_refused(attach) -> None:
    need("xdp_link")
    with xdp() as program, attach(Link.attach_xdp, program), pytest.raises(BpfError, match="EBUSY"):
        attach(Link.attach_xdp, program)


def test_a_program_of_another_kind_does_not_fit_a_link(attach) -> None:
    need("xdp_link")
    with xdp() as program, attach(Link.attach_xdp, program) as link, tc() as other, pytest.raises(BpfError):
        link.update(other)


@pytest.mark.parametrize("ingress", [True, False])
def test_a_tcx_link_is_described_and_switched(attach, ingress: bool) -> None:
    need("tcx")
    with tc() as first, tc() as second, attach(Link.attach_tcx, first, ingress=ingress) as link:
        assert (link.info.kind, link.info.attach) == ("tcx", "tcx_ingress" if ingress else "tcx_egress")
        link.update(second)
        assert link.info.program_id == second.id


def test_a_pinned_link_stays_until_it_is_unpinned(attach, bpffs: Path, host: Namespace) -> None:
    need("xdp_link")
    with xdp() as program, attach(Link.attach_xdp, program) as link:
        link.pin(bpffs / "link")
        number = program.id
    assert devices.find(host, "left").xdp == (("native", number),)
    with Link.from_pin(bpffs / "link") as again:
        assert again.info.program_id == number
        Link.unpin(bpffs / "link")
    assert devices.find(host, "left").xdp == ()


def test_a_link_whose_device_went_says_so(attach, host: Namespace) -> None:
    need("tcx")
    with tc() as program, attach(Link.attach_tcx, program, ingress=True) as link:
        subprocess.run(["ip", "-n", host.name, "link", "del", "left"], check=True, timeout=10)
        assert link.info.ifindex == 0
        with pytest.raises(BpfError, match="cannot switch the link"):
            link.update(program)


def test_a_cgroup_link_is_attached_beside_others() -> None:
    need("sock_ops")
    attached = ATTACH["cgroup_sock_ops"]
    with load_program("sock_ops", answer(1), expected_attach_type=attached) as program:
        one, two = sock_ops.attach(program), sock_ops.attach(program)
        with one, two, Link.from_id(two.id) as again:
            assert (one.info.kind, one.info.attach) == ("cgroup", "cgroup_sock_ops")
            assert one.id != two.id
            assert again.info == two.info


ITERATOR = """
struct bpf_iter_meta { void *seq; } __attribute__((preserve_access_index));
struct bpf_iter__tcp { struct bpf_iter_meta *meta; void *sk_common; } __attribute__((preserve_access_index));
SEC("iter/tcp") int each(struct bpf_iter__tcp *ctx)
{
	char word[4] = "sock";

	if (ctx->sk_common)
		bpf_seq_write(ctx->meta->seq, word, 4);
	return 0;
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


def test_an_iterator_is_read_as_often_as_wanted(compile_bpf, host: Namespace) -> None:
    need("bpf_iter_tcp")
    loaded = load_object(compile_bpf(ITERATOR, "iterator"))
    with loaded, Link.attach_iter(loaded.programs["each"]) as link:

        def count() -> list[bytes]:
            before = link.read()
            listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
            after = link.read()
            for entry in listening:
                entry.close()
            return [before, after]

        assert namespaces.call(host, count) == [b"", b"sock" * 3]


def test_a_tracepoint_that_is_not_there_is_named() -> None:
    need("raw_tracepoint")
    program = load_program("raw_tracepoint", answer(0))
    with program, pytest.raises(BpfError, match="to the tracepoint no_such_event"):
        Link.attach_raw_tracepoint(program, "no_such_event")
