# SPDX-License-Identifier: Apache-2.0
"""Joins two hosts by their paths, in one of three ways.

``veth``   a cable: no delay, no rate, as fast as the machine; for tests.
``netem``  a cable with the kernel's netem at both ends: rate, delay, queue.
``relay``  TAP devices and the lab's own link process, for kernels without netem.

Packets are single frames with real checksums on all three.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.lab import namespace, offload, process
from emptcp.lab.host import Host
from emptcp.lab.path import MTU, End, LabPath

KINDS = ("auto", "veth", "netem", "relay")
FRAME = MTU + 14


def choose(kind: str, host: Host, paths: Sequence[LabPath] = ()) -> str:
    """Turn ``auto`` into netem when this kernel has it, else into the relay; the latter has shared links."""
    if kind not in KINDS:
        fix = did_you_mean(kind, KINDS).capitalize() or f"There are: {', '.join(KINDS)}."
        raise EmptcpError(f"there is no link '{kind}'", fix=fix)
    if any(path.path.link for path in paths):
        if kind not in ("auto", "relay"):
            raise EmptcpError(
                f"paths that share a link can't be joined by {kind}", fix="Use the link 'relay', or 'auto'."
            )
        return "relay"
    if kind == "auto":
        return "netem" if has_netem(host) else "relay"
    return kind


def has_netem(host: Host) -> bool:
    """Whether the kernel has netem and tc can use it: tried on the host's loopback device."""
    try:
        namespace.tc(["qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"], netns=host.netns)
    except EmptcpError:
        return False
    namespace.tc(["qdisc", "delete", "dev", "lo", "root"], netns=host.netns)
    return True


def join_by_veth(paths: Sequence[LabPath], a: Host, b: Host) -> None:
    """Make one veth pair per path, without offloads, still down and without addresses."""
    for path in paths:
        near, far = path.a.device, path.b.device
        namespace.ip(
            ["link", "add", near, "netns", a.netns, "type", "veth", "peer", "name", far, "netns", b.netns]
        )
    devices = [path.name for path in paths]
    for host in (a, b):
        host.call(lambda: offload.turn_off(devices))


def shape_by_netem(paths: Sequence[LabPath], a: Host, b: Host) -> None:
    """Give both ends of every veth pair the path's rate, half its round-trip time, and its queue."""
    for path in paths:
        for host in (a, b):
            namespace.tc(netem(path), netns=host.netns)


def start_relay(paths: Sequence[LabPath], a: Host, b: Host, *, kept: bool) -> subprocess.Popen[str]:
    """Start the link process and wait until it has made the TAP devices; then write it down, and ``let_run``.

    Raises EmptcpError with what the process says when it can't.
    """
    order = json.dumps({"a": a.netns, "b": b.netns, "paths": [_for_relay(path) for path in paths]})
    relay = process.start(
        [sys.executable, "-P", "-m", "emptcp.lab.relay", order],
        dies_with_us=not kept,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert relay.stdout is not None
    if relay.stdout.readline().strip() != "ready":
        said = relay.communicate()[1].strip()
        process.end(relay)
        raise EmptcpError(f"the link process did not start: {said}")
    return relay


def let_run(relay: subprocess.Popen[str]) -> None:
    """Tell the link process that it is written down; it would end with us before."""
    assert relay.stdin is not None
    relay.stdin.write("run\n")
    relay.stdin.close()


def _for_relay(path: LabPath) -> dict[str, str | float]:
    shape = {"rate": path.rate, "rtt": path.rtt, "queue": path.path.queue_bytes}
    return {"device": path.name, "link": path.path.link, **shape}


def netem(path: LabPath) -> list[str]:
    """The tc arguments for one direction of a path."""
    # netem counts packets, and those in flight too: the queue plus what half a round trip holds.
    held = path.path.queue_bytes + path.rate / 8 * path.rtt / 2
    return [
        *("qdisc", "add", "dev", path.name, "root", "netem"),
        *("delay", f"{path.rtt / 2 * 1e6:.0f}us"),
        *("rate", f"{path.rate:.0f}bit"),
        *("limit", f"{max(1, round(held / FRAME))}"),
    ]


def configure(paths: Sequence[LabPath], a: Host, b: Host) -> None:
    """Bring the devices of both hosts up, with addresses of both families and fixed neighbours."""
    namespace.ip_batch(_host_lines([(path.a, path.b) for path in paths]), netns=a.netns)
    namespace.ip_batch(_host_lines([(path.b, path.a) for path in paths]), netns=b.netns)


def _host_lines(ends: Sequence[tuple[End, End]]) -> list[str]:
    return ["link set lo up", *(line for near, far in ends for line in _device_lines(near, far))]


def _device_lines(near: End, far: End) -> list[str]:
    device = near.device
    return [
        # No link-local address, no ARP, no neighbour discovery: they would be in the way of the first packet.
        f"link set {device} address {near.mac} addrgenmode none",
        # The queue that drops is the link's own, never the device's.
        f"link set {device} txqueuelen 10000 mtu {MTU} up",
        f"addr add {near.address4}/24 dev {device}",
        f"addr add {near.address6}/64 dev {device} nodad",
        f"neigh add {far.address4} lladdr {far.mac} dev {device} nud permanent",
        f"neigh add {far.address6} lladdr {far.mac} dev {device} nud permanent",
    ]
