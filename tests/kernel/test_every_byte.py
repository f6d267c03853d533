# SPDX-License-Identifier: Apache-2.0
"""Every byte value both ways over real MPTCP under every selector and actor: not one byte may change.

Actors are found, not listed: one that comes to the tree takes part.

The lab computes every checksum in software, so that one which a policy broke is seen by the receiver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File

import pytest

from emptcp.chain import apply, running
from emptcp.chain.counters import Counters
from emptcp.lab.path import Path
from emptcp.lab.resident import resident
from emptcp.lab.topology import Lab, two_hosts
from emptcp.lab.transfer import Transfer
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.policy import file
from emptcp_sdk.fuzz.stages import below

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

SIZE = 2_000_000
NETWORK = {4: "10.0.0.0/8", 6: "fd00::/16"}
BACK_ENDS = ("tc", "xdp", "xdp-generic")

POLICY = """
table = "bytes"

[[policy]]
name = "under test"
hook = [{hooks}]
dev = ["{device}"]
backend = "{backend}"
{when}
do = [{do}]
"""

BROKEN = ("Fallback", "Infinite", "MPFail", "CsumErr", "DSSNot", "DSSNoMatch", "Corruption")
"""Parts of the names of the kernel's counters that tell of MPTCP options it could not use."""

TYPES = "'dss', 'data', 'ack', 'fin', 'mp_capable', 'mp_join', 'add_addr'"
SELECTORS = {
    "ip_pair": "ip_pair(saddr={network}, daddr={network})",
    "subflow": "subflow(saddr={network}) and not subflow(dport=1) and not subflow(sport=1)",
    "packet_type": f"packet_type({TYPES}) and not packet_type('syn', 'synack', 'rst')",
    "record": "",
}

GUARDS = {"drop": "packet_type('data') and sample(every=7)"}
"""Actor -> the packets that it may have: TCP makes good what is lost now and then."""

ARGUMENTS = {
    "add_option": "exid=0xe0e1, value=7, size=2",
    "rate_limit": "rate=2gbit, mode=police",
    "record": "'packets', 'bytes'",
    "remove_option": "kind=8, unsafe=true",
    "set_backup": "on=true",
    "steer": "to=[path1], by=hash, mode=mark",
}
"""Actor -> the values that let it act upon a connection without ending it; others have none to give."""

SUBFLOWS = {"blk_subflow": 1}
"""Actor -> the subflows of a connection, where they are not one on each path."""


def actors() -> list[StageType]:
    """Return all actors of this tree."""
    found = below(File(__file__).parents[2] / "plugins", Catalog.of_enabled())
    return [one for one in found if one.kind == "actor"]


@dataclass(frozen=True)
class Site:
    """On which hooks a policy sits, and by which back-end at ingress."""

    hooks: tuple[str, ...]
    backend: str

    def __str__(self) -> str:
        return f"{'+'.join(self.hooks)} {self.backend}"


INGRESS = {backend: Site(("ingress",), backend) for backend in BACK_ENDS}
EGRESS = Site(("egress",), "auto")
BOTH = {backend: Site(("ingress", "egress"), backend) for backend in BACK_ENDS}


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path(), Path()], link="veth", family=request.param, name="bytes") as made:
            yield made


def put_in_force(lab: Lab, site: Site, when: str, do: str, device: str = "path*") -> None:
    """Apply one policy on host a."""
    text = POLICY.format(
        hooks=", ".join(f'"{hook}"' for hook in site.hooks),
        device=device,
        backend=site.backend,
        when=f'when = "{when.format(network=NETWORK[lab.family])}"' if when else "",
        do=do,
    )
    apply.apply(file.loads(text), lab.a.netns)


def stages(hook: str) -> dict[str, Counters]:
    """Return what the stages of all programs of a hook counted, by device and stage."""
    found = (one for one in running.everything().values() if one.description.hook == hook)
    return {
        f"{one.description.device} {name.rpartition('/')[2]}": count
        for one in found
        for name, count in one.counts().items()
        if name
    }


def check_intact(done: Transfer, subflows: int = 2) -> None:
    """Check that every byte arrived, over MPTCP from the first packet to the last."""
    assert done.intact, (done.at_a, done.at_b)
    assert done.mptcp
    assert done.subflows == subflows
    assert done.bad_checksums == 0
    moved = [name for name in (*done.counters_a, *done.counters_b) if name.startswith("MPTcpExt")]
    assert not [name for name in moved if any(word in name for word in BROKEN)]


def check_back_ends(site: Site, devices: int) -> None:
    """Check that the policy sits where it was asked to, and nowhere else."""
    found = [one.description for one in running.everything().values() if one.description.policies]
    wanted = {"ingress": site.backend, "egress": "tc"}
    assert sorted((one.hook, one.backend) for one in found) == sorted(
        (hook, wanted[hook]) for hook in site.hooks for _ in range(devices)
    )


@pytest.mark.parametrize("site", [INGRESS["xdp"], EGRESS, BOTH["tc"], BOTH["xdp-generic"]], ids=str)
@pytest.mark.parametrize("case", SELECTORS)
def test_a_policy_that_only_looks_changes_no_byte(lab: Lab, case: str, site: Site) -> None:
    put_in_force(lab, site, SELECTORS[case], "\"record('packets', 'bytes')\"")
    check_back_ends(site, devices=2)
    check_intact(lab.transfer(SIZE))
    for hook in site.hooks:
        seen = stages(hook)
        assert all(count.packets for count in seen.values()), seen
        bytes_seen = sum(count.bytes for name, count in seen.items() if name.endswith(" record"))
        assert SIZE < bytes_seen < 1.5 * SIZE


@pytest.mark.parametrize(
    ("steers", "site"),
    [
        ("us", INGRESS["tc"]),
        ("us", BOTH["xdp"]),
        ("peer", EGRESS),
        ("peer", BOTH["xdp-generic"]),
        *(("both", site) for site in BOTH.values()),
    ],
    ids=str,
)
def test_a_path_made_backup_changes_the_way_and_no_byte(lab: Lab, steers: str, site: Site) -> None:
    put_in_force(lab, site, "", f"\"set_backup(on=true, steers='{steers}')\"", device="path1")
    check_back_ends(site, devices=1)
    done = lab.transfer(SIZE)
    check_intact(done)
    assert all(count.packets for hook in site.hooks for count in stages(hook).values())
    ends = {"us": (done.counters_a, done.sent_a), "peer": (done.counters_b, done.sent_b)}
    for end, (counters, sent) in ends.items():
        steered = steers in (end, "both")
        # Said once, whatever number of packets could have carried it.
        assert counters.get("MPTcpExtMPPrioRx", 0) == int(steered), end
        assert not steered or sent["path1"] < 0.1 * sent["path2"], (end, sent)


@pytest.fixture
def with_process(instance: None) -> Iterator[None]:
    """An ``emptcp run``, for actors that need one."""
    with resident():
        yield


@pytest.mark.parametrize("actor", actors(), ids=lambda one: one.name)
def test_every_actor_acts_on_its_hooks_and_no_byte_changes(
    lab: Lab, actor: StageType, request: pytest.FixtureRequest
) -> None:
    """On one of two paths, so that what a host sends and what it receives there passes the actor."""
    if actor.resident:
        request.getfixturevalue("with_process")
    site = Site(actor.declaration.hooks, "auto")
    text = f"{actor.name}({ARGUMENTS.get(actor.name, '')})"
    put_in_force(lab, site, GUARDS.get(actor.name, ""), f'"{text}"', device="path1")
    check_intact(lab.transfer(SIZE), SUBFLOWS.get(actor.name, 2))
    for hook in site.hooks:
        assert all(count.packets for count in stages(hook).values()), stages(hook)
