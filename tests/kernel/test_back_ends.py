# SPDX-License-Identifier: Apache-2.0
"""By which back-end a policy runs, why, and what happens where the kernel or a driver has less to offer."""

from __future__ import annotations

import gc
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emptcp.chain import running
from emptcp.hooks import devices, foreign, namespaces
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts
from emptcp.pybpf import features

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """
table = "t"

[[policy]]
name = "watched"
hook = {hooks}
dev = {devices}
backend = "{backend}"
when = "{when}"
do = ["record('packets', 'bytes')"]
"""
WHEN = "ip_pair(saddr=10.0.0.0/8) and not packet_type('syn')"

Write = Callable[..., str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path()], link="veth", name="backends") as made:
            yield made


def policy(
    device: str, backend: str = "auto", hooks: tuple[str, ...] = ("ingress",), when: str = WHEN
) -> str:
    return POLICY.format(hooks=list(hooks), devices=[device], backend=backend, when=when)


def listed(emptcp: Any) -> dict[str, dict[str, Any]]:
    """Return the programs that `emptcp list` tells of, by device and hook."""
    said = emptcp("list", "--json")
    assert said.code == 0, said.err
    programs = [one for table in json.loads(said.out)["tables"] for one in table["programs"]]
    return {f"{one['device']} {one['hook']}": one for one in programs}


def stage(program: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in program["policies"][0]["stages"] if one["id"] == name)


def on_device(netns: str, name: str) -> list[tuple[str, str, int]]:
    """Return hook, back-end and program id of everything on a device, whoever put it there."""
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, name)
    return namespaces.call(namespace, lambda: list(foreign._places(device)))


def qdiscs(netns: str, name: str) -> set[str]:
    command = ["tc", "-n", netns, "-json", "qdisc", "show", "dev", name]
    said = subprocess.run(command, check=True, capture_output=True, timeout=10).stdout
    return {entry["kind"] for entry in json.loads(said)}


def ids() -> dict[str, int]:
    found = running.everything().values()
    return {f"{one.description.device} {one.description.hook}": one.program.id for one in found}


@pytest.mark.parametrize(
    ("device", "backend", "used", "why"),
    [
        ("left0", "auto", "tc", "segmentation offload"),
        ("left0", "tc", "tc", "asked for"),
        ("left0", "xdp", "xdp", "asked for"),
        ("left0", "xdp-generic", "xdp-generic", "asked for"),
        ("tap0", "auto", "tc", "merged packets"),
        ("tun0", "auto", "tc", "native XDP needs an Ethernet header"),
        ("br0", "auto", "tc", "gains nothing on a virtual device (bridge)"),
        ("lo", "auto", "tc", "the loopback device has no native XDP"),
    ],
)
def test_list_tells_the_back_end_and_why_it_was_chosen(
    netns: Callable[[], str], emptcp: Any, write: Write, device: str, backend: str, used: str, why: str
) -> None:
    name = netns()
    for words in ("tuntap add tap0 mode tap", "tuntap add tun0 mode tun", "link add br0 type bridge"):
        subprocess.run(["ip", "-n", name, *words.split()], check=True, timeout=10)
    path = write(policy(device, backend, ("ingress", "egress")))
    done = emptcp("apply", path, "--netns", name)
    assert (done.code, done.err) == (0, "")
    programs = listed(emptcp)
    inward, outward = programs[f"{device} ingress"], programs[f"{device} egress"]
    assert inward["backend"] == used
    assert why in inward["reason"]
    assert (outward["backend"], outward["reason"]) == ("tc", "XDP does not see packets that leave")
    assert f"by {used} ({inward['reason']})" in emptcp("list").out
    assert [(hook, backend) for hook, backend, _ in on_device(name, device)] == [
        ("ingress", used),
        ("egress", "tc"),
    ]


@pytest.fixture
def long_frames(netns: Callable[[], str]) -> str:
    """Return a namespace whose ``left0`` refuses native XDP, because its peer's frames are too long."""
    name = netns()
    subprocess.run(["ip", "-n", name, "link", "set", "right0", "mtu", "9000"], check=True, timeout=10)
    return name


def refusal() -> str:
    """Return why a veth refuses: in its driver's words where the kernel passes them on."""
    if features.has("attach_error") or not features.has("xdp_link"):
        return "veth: Peer MTU is too large to set XDP"
    return "a size is out of the permitted range"


def test_a_refused_driver_says_so_in_its_own_words_and_nothing_is_attached(
    long_frames: str, emptcp: Any, write: Write
) -> None:
    done = emptcp("apply", write(policy("left0", "xdp")), "--netns", long_frames)
    assert done.code == 1
    assert done.err.splitlines() == [
        f"emptcp: device 'left0' refuses native XDP at ingress: {refusal()}",
        'Use backend = "auto" or "tc".',
    ]
    assert on_device(long_frames, "left0") == []
    assert emptcp("list").out == ""


def test_a_refused_driver_leaves_what_ran_before_as_it_was(
    long_frames: str, emptcp: Any, write: Write
) -> None:
    both = ("ingress", "egress")
    assert emptcp("apply", write(policy("*", "auto", both)), "--netns", long_frames).code == 0
    before, there = ids(), {name: on_device(long_frames, name) for name in ("left0", "right0")}
    # The egress hooks have something to switch too, and right0 takes native XDP: both are taken back.
    refused = emptcp("apply", write(policy("*", "xdp", both, "packet_type('data')")), "--netns", long_frames)
    assert refused.code == 1
    assert refusal() in refused.err
    assert ids() == before
    assert {name: on_device(long_frames, name) for name in ("left0", "right0")} == there
    assert all(one["backend"] == "tc" for one in listed(emptcp).values())


@pytest.mark.parametrize("missing", ["", "xdp_link"])
def test_a_driver_that_refuses_a_move_from_generic_xdp_leaves_that_in_force(
    long_frames: str, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    assert emptcp("apply", write(policy("left0", "xdp-generic")), "--netns", long_frames).code == 0
    before, there = ids(), on_device(long_frames, "left0")
    refused = emptcp("apply", write(policy("left0", "xdp")), "--netns", long_frames)
    assert refused.code == 1
    assert "refuses native XDP" in refused.err
    gc.collect()  # a link that nothing keeps ends here at the latest
    assert ids() == before
    assert on_device(long_frames, "left0") == there
    # It is still one that can be switched, and taken away.
    changed = policy("left0", "xdp-generic", when="packet_type('data')")
    assert emptcp("apply", write(changed), "--netns", long_frames).code == 0
    assert ids() != before


def test_a_policy_moves_between_back_ends_and_leaves_no_program_behind(
    lab: Lab, emptcp: Any, write: Write
) -> None:
    for backend in ("tc", "xdp", "xdp-generic", "tc", "xdp-generic", "xdp"):
        done = emptcp("apply", write(policy("path1", backend)), "--netns", lab.a.netns)
        assert done.code == 0, done.err
        places = [place for place in on_device(lab.a.netns, "path1") if place[0] == "ingress"]
        assert places == [("ingress", backend, ids()["path1 ingress"])]
        assert listed(emptcp)["path1 ingress"]["backend"] == backend
    transfer = lab.transfer(200_000)
    assert transfer.intact
    assert stage(listed(emptcp)["path1 ingress"], "record")["packets"] > 10


NOTHING = "tcx,xdp_link,batch,mmapable_array,attach_error"


@pytest.mark.parametrize(
    ("missing", "backend"),
    [
        ("tcx", "tc"),
        ("xdp_link", "xdp"),
        ("mmapable_array", "tc"),
        (NOTHING, "tc"),
        (NOTHING, "xdp"),
        (NOTHING, "xdp-generic"),
    ],
)
def test_all_commands_work_on_a_kernel_that_has_less(
    lab: Lab, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str, backend: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    both = ("ingress", "egress")
    assert emptcp("apply", write(policy("path1", backend, both)), "--netns", lab.a.netns).code == 0
    links = [one.link is not None for one in running.everything().values()]
    tcx, xdp = features.has("tcx"), features.has("xdp_link")
    assert sorted(links) == sorted([tcx, tcx if backend == "tc" else xdp])
    lab.transfer(100_000)
    first = listed(emptcp)["path1 ingress"]
    assert first["backend"] == backend
    assert stage(first, "record")["bytes"] > 100_000
    loaded = ids()

    # Tuning writes into the program that runs, more than eight bytes among others.
    assert emptcp("tune", "watched", "ip_pair", "saddr=10.9.9.9").code == 0
    lab.transfer(100_000)
    assert ids() == loaded
    tuned = listed(emptcp)["path1 ingress"]
    assert stage(tuned, "ip_pair")["text"] == "ip_pair(saddr=10.9.9.9/32)"
    assert stage(tuned, "record")["bytes"] == stage(first, "record")["bytes"]
    assert stage(tuned, "ip_pair")["packets"] > stage(first, "ip_pair")["packets"]

    # Another expression takes another program, in the place of the first.
    assert emptcp("tune", "watched", "when=packet_type('data')").code == 0
    assert not set(ids().values()) & set(loaded.values())
    assert sorted(number for *_, number in on_device(lab.a.netns, "path1")) == sorted(ids().values())
    transfer = lab.transfer(100_000)
    assert transfer.intact
    assert stage(listed(emptcp)["path1 ingress"], "record")["bytes"] > stage(tuned, "record")["bytes"]

    assert emptcp("remove", "t").code == 0
    assert on_device(lab.a.netns, "path1") == []
    assert "clsact" not in qdiscs(lab.a.netns, "path1")


def test_a_change_without_links_is_taken_back_when_a_later_step_fails(
    long_frames: str, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx,xdp_link")
    both = ("ingress", "egress")
    assert emptcp("apply", write(policy("*", "auto", both)), "--netns", long_frames).code == 0
    before, there = ids(), {name: on_device(long_frames, name) for name in ("left0", "right0")}
    refused = emptcp("apply", write(policy("*", "xdp", both, "packet_type('data')")), "--netns", long_frames)
    assert refused.code == 1
    assert refusal() in refused.err
    assert ids() == before
    assert {name: on_device(long_frames, name) for name in ("left0", "right0")} == there
    assert emptcp("remove", "t").code == 0
    assert all(on_device(long_frames, name) == [] for name in ("left0", "right0"))
    assert all("clsact" not in qdiscs(long_frames, name) for name in ("left0", "right0"))


def test_what_was_attached_without_links_is_found_by_a_later_command_that_could_have_them(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, both = netns(), ("ingress", "egress")
    monkeypatch.delenv("EMPTCP_DISABLE", raising=False)
    with monkeypatch.context() as patch:
        patch.setenv("EMPTCP_DISABLE", "tcx,xdp_link")
        assert emptcp("apply", write(policy("left0", "xdp", both)), "--netns", name).code == 0
    there = on_device(name, "left0")
    assert emptcp("apply", write(policy("left0", "xdp", both)), "--netns", name).code == 0
    assert on_device(name, "left0") == there
    changed = policy("left0", "xdp", both, "packet_type('data')")
    assert emptcp("apply", write(changed), "--netns", name).code == 0
    assert [place[:2] for place in on_device(name, "left0")] == [place[:2] for place in there]
    assert emptcp("remove", "t").code == 0
    assert on_device(name, "left0") == []
    assert "clsact" not in qdiscs(name, "left0")


def test_another_tools_filter_and_its_qdisc_stay_where_they_are(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    name = netns()
    tc = ["tc", "-n", name]
    subprocess.run([*tc, "qdisc", "add", "dev", "left0", "clsact"], check=True, timeout=10)
    theirs = ["filter", "add", "dev", "left0", "ingress", "prio", "9", "bpf", "bytecode"]
    subprocess.run([*tc, *theirs, "1,6 0 0 0"], check=True, timeout=10)
    assert emptcp("apply", write(policy("left0")), "--netns", name).code == 0
    assert emptcp("remove", "t").code == 0
    command = [*tc, "filter", "show", "dev", "left0", "ingress"]
    left = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
    assert "pref 9 bpf" in left
    assert "emptcp" not in left
    assert "clsact" in qdiscs(name, "left0")
