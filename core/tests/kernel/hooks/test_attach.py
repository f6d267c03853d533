# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import attach, clsact, devices, foreign, namespaces, refusals
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.pybpf import Link, features, load_program
from emptcp.pybpf.assembly import answer
from emptcp_sdk.compiler import compile_source, find_compiler

pytestmark = pytest.mark.kernel

SENTENCE = "veth: Peer MTU is too large to set XDP"


def need(*names: str) -> None:
    for name in names:
        if not features.has(name):
            pytest.skip(features.reason(name))


@pytest.fixture(params=["links", "no links"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test on this kernel's links, and once more as on a kernel that has none."""
    if request.param == "links":
        need("tcx", "xdp_link")
        return True
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx,xdp_link")
    return False


@pytest.fixture
def hearing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the program that hears drivers' sentences, compiled from its source."""
    need("attach_error")
    source = refusals.OBJECT.with_suffix("").with_suffix(".bpf.c")
    compile_source(find_compiler(), source, tmp_path / "attach_error.bpf.o")
    monkeypatch.setattr(refusals, "OBJECT", tmp_path / "attach_error.bpf.o")
    refusals._loaded.cache_clear()


def qdiscs(host: Namespace, name: str) -> list[str]:
    command = ["ip", "netns", "exec", host.name, "tc", "-json", "qdisc", "show", "dev", name]
    said = subprocess.run(command, check=True, capture_output=True, timeout=10).stdout
    return [entry["kind"] for entry in json.loads(said)]


def running(host: Namespace, device: Device, hook: str) -> list[int]:
    """Return the ids of all programs on a hook, in order."""
    now = devices.find(host, device.name)
    places = namespaces.call(host, lambda: list(foreign._places(now)))
    return [number for where, _, number in places if where == hook]


@pytest.mark.parametrize(
    ("name", "hook", "asked", "used"),
    [
        ("right", "ingress", "xdp", "xdp"),
        ("tap0", "ingress", "xdp", "xdp"),
        ("left", "ingress", "xdp-generic", "xdp-generic"),
        ("tun0", "ingress", "xdp-generic", "xdp-generic"),
        ("left", "ingress", "tc", "tc"),
        ("right", "egress", "xdp", "tc"),
        ("tun0", "egress", "auto", "tc"),
        ("lo", "ingress", "auto", "tc"),
    ],
)
def test_a_program_is_attached_switched_and_taken_away(
    host: Namespace, device, supply, either: bool, name: str, hook: str, asked: str, used: str
) -> None:
    target = device(name)
    first = attach.attach(host, target, hook, asked, supply)
    assert first.backend == used
    assert first.reason
    assert (first.link is not None) is either
    assert running(host, target, hook) == [first.program_id]
    second = attach.attach(host, target, hook, asked, supply, first)
    assert second.program_id != first.program_id
    assert running(host, target, hook) == [second.program_id]
    assert not second.gone()
    second.detach()
    assert running(host, target, hook) == []
    assert second.gone()
    second.detach()
    assert "clsact" not in qdiscs(host, name)


def test_a_reserved_place_becomes_the_programs_own(host: Namespace, device, supply) -> None:
    need("tcx")
    here = device("left")
    reserved = attach.reserve(host, here, "ingress", "auto")
    assert reserved is not None
    assert reserved.link is not None
    number = reserved.link.id
    (holder,) = running(host, here, "ingress")
    made = attach.attach(host, here, "ingress", "auto", supply, reserved)
    assert made.link is not None
    assert (made.link.id, made.mechanism, made.reason) == (number, "tcx", reserved.reason)
    assert running(host, here, "ingress") == [made.program_id] != [holder]
    made.detach()


def test_a_reserved_place_is_gone_with_whoever_took_it(host: Namespace, device) -> None:
    need("tcx")
    here = device("left")
    reserved = attach.reserve(host, here, "egress", "tc")
    assert reserved is not None
    reserved.close()
    assert running(host, here, "egress") == []


def test_only_tcx_is_reserved(host: Namespace, device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attach.reserve(host, device("left"), "ingress", "xdp-generic") is None
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    assert attach.reserve(host, device("left"), "ingress", "tc") is None
    assert running(host, device("left"), "ingress") == []


def test_a_veth_gets_tc_by_itself_and_the_reason_says_why(host: Namespace, device, supply) -> None:
    found = attach.attach(host, device("left"), "ingress", "auto", supply)
    assert found.backend == "tc"
    assert "segmentation offload" in found.reason
    found.detach()


@pytest.mark.usefixtures("hearing")
def test_a_refusal_carries_the_drivers_own_sentence(host: Namespace, device, supply) -> None:
    need("xdp_link")
    with pytest.raises(EmptcpError) as caught:
        attach.attach(host, device("left"), "ingress", "xdp", supply)
    assert caught.value.sentence == f"device 'left' refuses native XDP at ingress: {SENTENCE}"
    assert "auto" in caught.value.fix


def test_without_links_the_sentence_comes_with_netlinks_answer(
    host: Namespace, device, supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "xdp_link")
    with pytest.raises(EmptcpError, match=SENTENCE):
        attach.attach(host, device("left"), "ingress", "xdp", supply)


def test_without_the_tracepoint_the_errno_is_put_into_words(
    host: Namespace, device, supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("xdp_link")
    monkeypatch.setenv("EMPTCP_DISABLE", "attach_error")
    refusals._loaded.cache_clear()
    with pytest.raises(EmptcpError, match="out of the permitted range"):
        attach.attach(host, device("left"), "ingress", "xdp", supply)
    refusals._loaded.cache_clear()


@pytest.mark.usefixtures("hearing")
def test_what_a_driver_refuses_goes_to_tc_with_its_sentence_as_the_reason(
    host: Namespace, device, supply
) -> None:
    need("xdp_link")
    # A veth that looks like a real device: native XDP is tried, and refused for the peer's long frames.
    nic = dataclasses.replace(device("left"), virtual=False, driver="nic")
    found = attach.attach(host, nic, "ingress", "auto", supply)
    assert (found.backend, found.reason) == ("tc", f"native XDP is refused: {SENTENCE}")
    found.detach()


def test_what_a_driver_takes_is_native(host: Namespace, device, supply, either: bool) -> None:
    nic = dataclasses.replace(device("right"), virtual=False, driver="nic")
    found = attach.attach(host, nic, "ingress", "auto", supply)
    assert found.backend == "xdp"
    assert ("native", found.program_id) in device("right").xdp
    found.detach()


def test_a_loaded_program_is_attached_only_where_its_kind_fits(host: Namespace, device, supply) -> None:
    with supply("sched_cls") as program:
        found = attach.attach(host, device("right"), "ingress", "auto", program)
        assert found.backend == "tc"
        found.detach()
        with pytest.raises(EmptcpError, match="kind does not fit the back-end 'xdp'"):
            attach.attach(host, device("right"), "ingress", "xdp", program)


@pytest.mark.parametrize(("before", "after"), [("tc", "xdp"), ("xdp", "xdp-generic"), ("xdp-generic", "tc")])
def test_a_program_moves_to_another_backend(
    host: Namespace, device, supply, either: bool, before: str, after: str
) -> None:
    first = attach.attach(host, device("right"), "ingress", before, supply)
    second = attach.attach(host, device("right"), "ingress", after, supply, first)
    assert second.backend == after
    assert running(host, device("right"), "ingress") == [second.program_id]
    second.detach()


def test_what_was_attached_is_found_again_without_a_record(
    host: Namespace, device, supply, either: bool, bpffs_of: Path
) -> None:
    for hook, backend in (("ingress", "xdp"), ("egress", "tc")):
        made = attach.attach(host, device("right"), hook, backend, supply)
        link = None
        if made.link is not None:
            made.link.pin(bpffs_of / hook)
            made.link.close()
            link = Link.from_pin(bpffs_of / hook)
        found = attach.restore(host, device("right"), hook, link, made.reason)
        assert found is not None
        assert (found.backend, found.mechanism, found.program_id) == (
            backend,
            made.mechanism,
            made.program_id,
        )
        found.detach()
        assert running(host, device("right"), hook) == []
    assert attach.restore(host, device("right"), "egress", None) is None


@pytest.fixture
def bpffs_of(tmp_path: Path):
    folder = tmp_path / "bpffs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True, timeout=10)
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=10)


def test_a_device_that_went_and_came_back_gets_a_new_attachment(
    host: Namespace, device, supply, either: bool
) -> None:
    first = attach.attach(host, device("left"), "ingress", "tc", supply)
    subprocess.run(["ip", "-n", host.name, "link", "del", "left"], check=True, timeout=10)
    assert first.gone()
    subprocess.run(
        ["ip", "-n", host.name, "link", "add", "left", "type", "veth", "peer", "right"],
        check=True,
        timeout=10,
    )
    second = attach.attach(host, device("left"), "ingress", "tc", supply, first)
    assert running(host, device("left"), "ingress") == [second.program_id]
    second.detach()


def test_a_foreign_program_is_named_and_stays(host: Namespace, device, supply, alien) -> None:
    need("tcx", "xdp_link")
    index = device("right").ifindex
    kept = namespaces.call(
        host,
        lambda: [
            Link.attach_xdp(alien("xdp"), index, native=False),
            Link.attach_tcx(alien("sched_cls"), index, ingress=True),
        ],
    )
    theirs = [link.info.program_id for link in kept]
    ours = attach.attach(host, device("right"), "ingress", "tc", supply)
    assert running(host, device("right"), "ingress") == [theirs[0], ours.program_id, theirs[1]]
    found = foreign.programs(host, device("right"))
    assert [(f.hook, f.backend, f.id, f.name) for f in found] == [
        ("ingress", "xdp-generic", theirs[0], "alien"),
        ("ingress", "tc", theirs[1], "alien"),
    ]
    assert all(f.owner == "loaded by root" for f in found)
    with pytest.raises(EmptcpError, match=rf"the XDP program 'alien' \(id {theirs[0]}, generic\) is there"):
        attach.attach(host, device("right"), "ingress", "xdp", supply)
    ours.detach()
    assert running(host, device("right"), "ingress") == theirs


def test_a_foreign_filter_in_our_place_is_not_replaced(
    host: Namespace, device, supply, alien, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    left = device("left")
    with alien("sched_cls") as other:
        monkeypatch.setattr(clsact, "_NAME_AND_QDISC", "alien")
        namespaces.call(host, lambda: clsact.put(left.ifindex, "ingress", other.fd))
        monkeypatch.undo()
        monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
        with pytest.raises(EmptcpError, match="another tool's filter 'alien'"):
            attach.attach(host, left, "ingress", "tc", supply)
        assert running(host, left, "ingress") == [other.id]


def test_a_qdisc_that_was_there_before_stays(
    host: Namespace, device, supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    command = ["ip", "netns", "exec", host.name, "tc", "qdisc", "add", "dev", "left", "clsact"]
    subprocess.run(command, check=True, timeout=10)
    attach.attach(host, device("left"), "ingress", "tc", supply).detach()
    assert "clsact" in qdiscs(host, "left")


def test_the_qdisc_goes_with_the_last_of_both_hooks(
    host: Namespace, device, supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    first = attach.attach(host, device("left"), "ingress", "tc", supply)
    second = attach.attach(host, device("left"), "egress", "tc", supply)
    first.detach()
    assert "clsact" in qdiscs(host, "left")
    second.detach()
    assert "clsact" not in qdiscs(host, "left")


def test_the_process_that_holds_a_foreign_program_is_its_owner(
    host: Namespace, device, bpffs_of: Path
) -> None:
    need("tcx")
    code = (
        "import time; from emptcp.pybpf import Link, load_program; from emptcp.pybpf.assembly import answer\n"
        "p = load_program('sched_cls', answer(-1), name='alien')\n"
        f"link = Link.attach_tcx(p, {device('left').ifindex}, ingress=True)\n"
        "print('attached', flush=True); time.sleep(30)"
    )
    command = ["ip", "netns", "exec", host.name, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "attached\n"
            (found,) = foreign.programs(host, device("left"))
            assert found.owner.endswith(f"pid {holder.pid}")
            assert str(found) == f"ingress tc: 'alien' (id {found.id}, {found.owner})"
        finally:
            holder.kill()


def test_packets_meet_the_program_until_it_is_taken_away(host: Namespace, device, either: bool) -> None:
    subprocess.run(["ip", "-n", host.name, "link", "set", "lo", "up"], check=True, timeout=10)
    drop = load_program("sched_cls", answer(2), name="emptcp_drop")  # TC_ACT_SHOT

    def answered() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as server:
            try:
                socket.create_connection(server.getsockname(), timeout=0.3).close()
            except TimeoutError:
                return False
        return True

    assert namespaces.call(host, answered)
    found = attach.attach(host, device("lo"), "ingress", "tc", drop)
    assert not namespaces.call(host, answered)
    found.detach()
    assert namespaces.call(host, answered)
