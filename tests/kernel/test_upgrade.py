# SPDX-License-Identifier: Apache-2.0
"""Another release of a plugin whose policies run: switched under traffic, its maps kept or made anew."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp import pybpf
from emptcp.chain import attachment, pins, running
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab.namespace import ip_batch
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp_sdk.compiler import compile_source, find_compiler
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

SOURCE = """
#include <emptcp/actor.h>

struct tally {{
	{fields}
}};

struct {{
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
}} tallies SEC(".maps");

struct mark {{
	__u32 number;
}};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{{
	__u32 key = 0;
	struct tally *tally = bpf_map_lookup_elem(&tallies, &key);

	if (tally)
		__sync_fetch_and_add(&tally->packets, {step});
	return EMPTCP_NEXT;
}}
"""
ONE, WIDER = "__u64 packets;", "__u64 bytes;\n\t__u64 packets;"
POLICY = """
table = "{table}"
[[policy]]
name = "p"
hook = "ingress"
dev = "{dev}"
do = ["mark(number={number})"]
"""
FRAME = build(options=[Dss(data_ack=1)])
STEP = 1_000_000
"""What the second release adds for each packet, more than there are."""

Release = Callable[..., None]
Apply = Callable[..., Any]


@pytest.fixture
def folder(stranger: Callable[..., Path]) -> Path:
    """The package of the plugin `mark`, found and not enabled."""
    return stranger()


@pytest.fixture
def release(folder: Path, tmp_path: Path, emptcp: Any) -> Release:
    """Return what puts a release in the plugin's place and enables it: its map's fields, and what it adds."""

    def put(fields: str = ONE, step: int = 1) -> None:
        shutil.copy(compiled(tmp_path, fields, step), folder / "mark.bpf.o")
        assert emptcp("plugins", "enable", "mark").code == 0

    return put


def compiled(folder: Path, fields: str = ONE, step: int = 1) -> Path:
    """Compile a release, unless that was done before, and return its object."""
    source = folder / f"release{len(fields)}_{step}.bpf.c"
    if not source.with_suffix(".o").exists():
        source.write_text(SOURCE.format(fields=fields, step=step))
        compile_source(find_compiler(), source, source.with_suffix(".o"))
    return source.with_suffix(".o")


@pytest.fixture
def wire(netns: Callable[[], str]) -> str:
    """A namespace with the cable left0-right0, up, and nothing on it but what a test sends."""
    where = netns()
    for device in ("left0", "right0"):
        ip_batch([f"link set {device} addrgenmode none", f"link set {device} up"], netns=where)
    return where


@pytest.fixture
def apply(emptcp: Any, write: Callable[..., str], wire: str) -> Apply:
    """Return what puts the actor in force on a device: -> how the command ended."""

    def put(*options: str, dev: str = "left0", number: int = 3) -> Any:
        text = POLICY.format(table=dev, dev=dev, number=number)
        return emptcp("apply", write(text), "--netns", wire, *options)

    return put


def send(wire: str, frames: int) -> None:
    """Send frames out of right0, which come in by left0."""
    with opened(wire) as sender:
        for _ in range(frames):
            sender.send(FRAME)


def opened(wire: str) -> socket.socket:
    def open_there() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind(("right0", 0))
        return made

    return namespaces.call(namespaces.resolve(wire), open_there)


class Traffic(threading.Thread):
    """Sends a frame every half millisecond until it is told to stop, a minute at most; counts them."""

    def __init__(self, wire: str) -> None:
        super().__init__(daemon=True)
        self._wire = wire
        self._enough = threading.Event()
        self.frames = 0

    def run(self) -> None:
        """Send."""
        with opened(self._wire) as sender:
            ends = time.monotonic() + 60
            while not self._enough.wait(0.0005) and time.monotonic() < ends:
                sender.send(FRAME)
                self.frames += 1

    def stop(self) -> int:
        """Stop, and return how many there were."""
        self._enough.set()
        self.join(10)
        return self.frames


def tally() -> tuple[int, tuple[int, ...]]:
    """Return the id of the pinned map and its numbers."""
    tree = pins.find()
    assert tree is not None
    with pybpf.Map.from_pin(tree.plugin_map("mark", "tallies")) as found:
        value = found.lookup(bytes(4)) or b""
        return found.id, struct.unpack(f"={len(value) // 8}Q", value)


def counted() -> int:
    """Return how many packets the stage on left0 counted, in all programs so far."""
    (program,) = (one for one in running.everything().values() if one.description.device == "left0")
    return program.counts()["left0/p/mark"].packets


def test_a_release_with_the_same_maps_takes_over_under_traffic_and_goes_on_counting(
    release: Release, apply: Apply, wire: str
) -> None:
    release(step=1)
    assert apply().code == 0
    number, _ = tally()
    traffic = Traffic(wire)
    traffic.start()
    wait_until(lambda: counted() > 100)
    release(step=STEP)
    assert apply().code == 0
    before = counted()
    wait_until(lambda: counted() > before + 100)
    frames = traffic.stop()
    assert counted() == frames
    same, (packets,) = tally()
    new, old = divmod(packets, STEP)
    assert (same, new + old) == (number, frames)
    assert min(new, old) >= 100


def test_other_maps_are_reported_field_by_field_and_made_anew_when_that_is_asked_for(
    release: Release, apply: Apply, wire: str
) -> None:
    release()
    assert apply().code == 0
    send(wire, 3)
    old, _ = tally()
    release(WIDER)
    said = apply()
    assert said.code == 1
    assert "the map 'tallies' of plugin 'mark' that is in use" in said.err
    assert "value.packets: __u64 (8 bytes at byte 8) here, __u64 (8 bytes at byte 0) there" in said.err
    assert "value.bytes: __u64 (8 bytes at byte 0) here, absent there" in said.err
    assert "Apply with --new-maps; what the map holds is lost." in said.err
    send(wire, 2)
    assert tally() == (old, (5,))
    assert apply("--new-maps").code == 0
    assert tally()[1] == (0, 0)
    send(wire, 4)
    new, numbers = tally()
    assert (new != old, numbers, counted()) == (True, (0, 4), 9)
    assert "unchanged" in apply("--new-maps").out
    assert tally() == (new, (0, 4))


def test_a_map_that_another_table_uses_elsewhere_is_not_made_anew(
    release: Release, apply: Apply, wire: str
) -> None:
    release()
    assert [apply(dev=dev).code for dev in ("left0", "right0")] == [0, 0]
    before = tally()
    release(WIDER)
    said = apply("--new-maps")
    assert said.code == 1
    assert "Run `emptcp remove left0` and `emptcp remove right0`, then apply again" in said.err
    assert tally() == before


def test_a_change_that_fails_leaves_the_old_map_in_its_place(
    release: Release, apply: Apply, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release()
    assert apply().code == 0
    before = tally()
    release(WIDER)

    def fail(*_: object) -> None:
        raise EmptcpError("the kernel refuses", fix="Try again.")

    with monkeypatch.context() as patch:
        patch.setattr(attachment, "carry_out", fail)
        assert apply("--new-maps").code == 1
    assert tally() == before
    send(wire, 2)
    assert tally() == (before[0], (2,))


def test_a_plugin_that_is_uninstalled_while_its_policy_runs_goes_on_and_is_listed_as_orphaned(
    release: Release, apply: Apply, folder: Path, wire: str, emptcp: Any
) -> None:
    release()
    assert apply().code == 0
    shutil.rmtree(folder)
    shutil.rmtree(folder.with_name("strangers_mark-1.0.dist-info"))
    send(wire, 3)
    assert (tally()[1], counted()) == ((3,), 3)
    listed = json.loads(emptcp("plugins", "list", "--json").out)["plugins"]
    assert [one["state"] for one in listed if one["name"] == "mark"] == ["orphaned"]
