# SPDX-License-Identifier: Apache-2.0
"""Two hosts joined by paths, as a context manager::

    with two_hosts([Path(rate=100e6, rtt=0.020), Path(rate=100e6, rtt=0.050)]) as lab:
        lab.a.run(["ss", "-tin"])
        print(lab.transfer().subflows)

Host a opens connections to host b. Host b announces its address on every path but the first
(ADD_ADDR, RFC 8684 section 3.4.1), so that a connection gets exactly one subflow per path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from emptcp.lab import cleanup, links, namespace, settings, state, transfer
from emptcp.lab.host import Host
from emptcp.lab.path import LabPath, Path, place_all
from emptcp.lab.process import Identity
from emptcp.lab.transfer import Order, Transfer

MOST_SUBFLOWS = 8
TWO_PATHS = (Path(rate=100e6, rtt=0.020), Path(rate=100e6, rtt=0.050))


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that stands: its hosts, its paths, how they are linked (``veth``, ``netem`` or ``relay``)."""

    name: str
    a: Host
    b: Host
    paths: tuple[LabPath, ...]
    link: str
    family: int

    @property
    def applied_at(self) -> Host:
        """The host where policies are in force."""
        return self.a

    @property
    def address(self) -> str:
        """The address of host b to connect to: that of the first path."""
        return self.paths[0].b.address(self.family)

    @property
    def path_names(self) -> Mapping[str, str]:
        """Host a's address on each path -> the path's name."""
        return {path.a.address(self.family): path.name for path in self.paths}

    def transfer(self, size: int = 2_000_000, *, timeout: float = 60) -> Transfer:
        """Send ``size`` bytes both ways at once over one MPTCP connection and compare every byte."""
        order = Order(size, self.address, len(self.paths), timeout)
        return transfer.run(self.a, self.b, order)


@contextlib.contextmanager
def two_hosts(
    paths: Sequence[Path] = TWO_PATHS, *, link: str = "auto", family: int = 4, name: str = "lab"
) -> Iterator[Lab]:
    """A lab that lasts as long as the block, or as this process when it is killed.

    ``link`` is ``auto``, ``netem``, ``relay`` or ``veth`` (fast, no delay, rate and RTT are ignored).
    ``family`` (4 or 6) is the one MPTCP announces addresses of; devices have addresses of both.
    ``name`` is told apart from other labs of this name by four hexadecimal digits.
    """
    token = secrets.token_hex(2)
    record = _begin(f"{state.check_name(name)}-{token}", f"emt-{name}-{token}")
    hosts = _hosts(record)
    try:
        yield _build(record, hosts, place_all(tuple(paths)), link, family)
    finally:
        _end(record, hosts)


def keep(name: str, paths: Sequence[Path] = TWO_PATHS, *, link: str = "auto", family: int = 4) -> Lab:
    """A lab that stays after this process, until ``cleanup.down``. Refused when there is one of this name."""
    record = _begin(state.check_name(name), f"emt-{name}-{secrets.token_hex(2)}")
    hosts = _hosts(record)
    try:
        lab = _build(record, hosts, place_all(tuple(paths)), link, family, kept=True)
        state.update(replace(state.find(name), owner=None))
    except BaseException:
        _end(record, hosts)
        raise
    return lab


def _begin(name: str, prefix: str) -> state.Record:
    settings.need_mptcp()
    cleanup.sweep()
    ours = Identity.of(os.getpid())
    record = state.Record(name=name, owner=ours, namespaces=(f"{prefix}-a", f"{prefix}-b"))
    state.create(record)
    return record


def _end(record: state.Record, hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        host.end_children()
    cleanup.remove(record)


def _hosts(record: state.Record) -> tuple[Host, Host]:
    netns_a, netns_b = record.namespaces
    return Host("a", netns_a), Host("b", netns_b)


def _build(
    record: state.Record,
    hosts: tuple[Host, Host],
    paths: tuple[LabPath, ...],
    link: str,
    family: int,
    *,
    kept: bool = False,
) -> Lab:
    a, b = hosts
    for host in hosts:
        namespace.add(host.netns)
        settings.make_steady(host)
    kind = links.choose(link, a, paths)
    described = tuple({"name": path.name, "rate": path.rate, "rtt": path.rtt} for path in paths)
    _join(replace(record, link=kind, paths=described), paths, hosts, kept)
    links.configure(paths, a, b)
    allow_subflows(a, b)
    announce(paths, b, family)
    return Lab(record.name, a, b, paths, kind, family)


def _join(record: state.Record, paths: tuple[LabPath, ...], hosts: tuple[Host, Host], kept: bool) -> None:
    a, b = hosts
    if record.link == "relay":
        relay = links.start_relay(paths, a, b, kept=kept)
        a.children.append(relay)
        state.update(record.with_process(Identity.of(relay.pid)))
        links.let_run(relay)
        return
    state.update(record)
    links.join_by_veth(paths, a, b)
    if record.link == "netem":
        links.shape_by_netem(paths, a, b)


def allow_subflows(*hosts: Host) -> None:
    """Let a connection of these hosts have as many subflows as the kernel knows."""
    limits = f"mptcp limits set subflows {MOST_SUBFLOWS} add_addr_accepted {MOST_SUBFLOWS}"
    for host in hosts:
        namespace.ip(limits.split(), netns=host.netns)


def announce(paths: Sequence[LabPath], b: Host, family: int) -> None:
    """Let host b announce its address of this family on every path but the first."""
    addresses = [(path.b.address(family), path.b.device) for path in paths[1:]]
    lines = [f"mptcp endpoint add {address} dev {device} signal" for address, device in addresses]
    namespace.ip_batch(lines, netns=b.netns)
