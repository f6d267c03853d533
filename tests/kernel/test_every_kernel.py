# SPDX-License-Identifier: Apache-2.0
"""What emptcp does on every kernel, whatever it lacks. `tox -e vm-6.1` and its like run this on others."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.chain.placement import indexes
from emptcp.hooks import namespaces
from emptcp.lab.namespace import ip_batch
from emptcp.packet.build import build
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinSyn, MpPrio, RemoveAddress
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.policy import file
from emptcp.pybpf import features, kinds, since
from emptcp.pybpf.libbpf import library

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

ACTORS = ("record('packets', 'bytes', 'rtt')", "set_backup(on=true)")
ENGINES = ("fused", "tail")
PLACES = (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
EIGHT_WHEN = (
    "ip_pair(saddr=10.0.0.0/8) and (subflow(dport=9) or packet_type('data')) and not packet_type('syn')"
)
EIGHT_DO = ("record('packets')", "record('bytes')", "set_backup(on=true)", "record('rtt')")
POLICY = """
table = "everywhere"
engine = "{engine}"

[[policy]]
name = "one"
hook = {hooks}
dev = "left0"
backend = "{backend}"
when = "{when}"
do = [{do}]
"""
TWO = """
[[policy]]
name = "two"
hook = ["ingress", "egress"]
dev = "left0"
when = "not packet_type('no_mptcp', 'fin') or subflow(sport=1)"
do = ["set_backup(on=true)"]
"""
GOLDEN = Path(__file__).parent / "every_kernel"

# Steps of the kernel's verifier, where the kernel tells them (5.16): a quarter of what it allows. Up to 6.1
# it takes half as many again as later for the same XDP program, and more.
VERIFIED = 250_000
DSS = Dss(data_ack=7, dsn=7, subflow_seq=1, data_length=3)
DATA = build(options=[DSS], payload=b"abc")
ACK = Dss(data_ack=9)
CAPTURED = (
    build(flags="S", options=[MpCapable()]),
    build(options=[MpCapable(sender_key=1, receiver_key=2)]),
    DATA,
    DATA,
    build(options=[ACK]),
    build(options=[ACK, MpPrio(True)]),
    build(options=[ACK], sport=5001, dport=40000, src="10.0.0.2", dst="10.0.0.1"),
    build(flags="S", options=[MpJoinSyn(token=3, nonce=4, address_id=1)], src="10.0.1.1", sport=40001),
    build(options=[AddAddress(2, IPv4Address("10.0.2.1"), hmac=bytes(8))]),
    build(options=[RemoveAddress((2,)), DSS], payload=b"abc", flags="AP"),
    build(family=6, vlan=(7,), options=[DSS], payload=bytes(1200)),
    build(options=[DSS], payload=b"abc", fragment=(0, True)),
    build(payload=b"plain TCP"),
    build(options=[b"\x1e\x00"], payload=b"abc"),
    build(protocol=17, transport=bytes(40)),
    DATA[:70],
)


def policy(*do: str, when: str = "packet_type('data')", backend: str = "auto", engine: str = "fused") -> str:
    actors = ", ".join(f'"{actor}"' for actor in do)
    return POLICY.format(hooks=["ingress", "egress"], backend=backend, when=when, do=actors, engine=engine)


@pytest.fixture
def load(record_property: Callable[[str, object], None]) -> Callable[..., Runner]:
    """Return what joins and loads a policy for a place, and notes what the verifier counted.

    To be closed at once: a guest has no memory for many.
    """

    def load_one(text: str, hook: str, backend: str) -> Runner:
        table = file.loads(text)
        devices = indexes(namespaces.resolve())
        bound = [bind(table, one, hook, Catalog.of_enabled(), devices) for one in table.policies]
        runner = Runner(bound, hook, backend, engine=table.engine)
        verified = runner.loaded.program.info.verified_instructions
        record_property("verified", verified)
        assert verified < VERIFIED
        return runner

    return load_one


REQUIRED = {
    "int": "7",
    "rate": "8kbit",
    "ipaddr": "10.0.0.9",
    "prefix": "10.0.0.0/8",
    "dev": "lo",
}
"""A value of each type that some stage can't be without."""


def example(stage: StageType) -> str:
    """Return a stage with the parameters that it must have."""
    given = []
    for parameter in stage.declaration.parameters:
        names = getattr(parameter.type, "names", None)
        if parameter.required and parameter.many:
            given += [f"'{name}'" for name in names] if names else [REQUIRED[parameter.type.kind]]
        elif parameter.required:
            kind = getattr(parameter.type, "of", parameter.type).kind
            value = next(iter(names)) if names else REQUIRED[kind]
            given.append(f"{parameter.name}={value}")
    return f"{stage.name}({', '.join(given)})"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), PLACES)
def test_every_stage_of_ours_runs_in_every_place(
    load: Callable[..., Runner], hook: str, backend: str, engine: str
) -> None:
    """Selectors in one program, each in a policy that matches whatever it answers; actors one by one."""
    stages = [
        one
        for one in Catalog.of_enabled()
        if hook in one.declaration.hooks and backend in one.declaration.backends
    ]
    selectors = [example(one) for one in stages if one.kind == "selector"]
    actors = [example(one) for one in stages if one.kind == "actor"]
    assert len(selectors) >= 8
    assert len(actors) >= 8
    asking = [policy("record('packets')", when=f"{one} or not {one}", engine=engine) for one in selectors]
    for texts in (asking, *([policy(one, engine=engine)] for one in actors)):
        with load("".join(_numbered(texts)), hook, backend) as runner:
            assert len(runner.run(DATA).matched) == len(texts)


def _numbered(texts: list[str]) -> Iterator[str]:
    """Yield the text of one table with the policies of several."""
    for number, text in enumerate(texts):
        head, mark, rest = text.replace('"one"', f'"one{number}"').partition("[[policy]]")
        yield (head if number == 0 else "") + mark + rest


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), PLACES)
def test_a_chain_of_eight_stages_runs_by_both_engines(
    load: Callable[..., Runner], hook: str, backend: str, engine: str
) -> None:
    with load(policy(*EIGHT_DO, when=EIGHT_WHEN, engine=engine), hook, backend) as runner:
        assert len(runner.loaded.description.stages()) == 8
        syn = build(flags="S", src="10.0.0.1", dst="10.0.0.2", dport=5001, options=[MpCapable()])
        assert runner.run(syn).matched == ()
        result = runner.run(DATA)
        assert result.matched == ("one",)
        assert result.counts["everywhere/one/set_backup"].packets == 1


KEPT = """
[set.bulk]
key = "subflow"
lru = {lru}
entries = ["10.0.0.1:40000-10.0.0.2:5001"]
[map.who]
key = "ip_pair"
type = "bool"
entries = {{ "10.0.0.2-10.0.0.1" = true }}
"""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("hook", "backend"), PLACES)
def test_sets_and_maps_are_asked(load: Callable[..., Runner], hook: str, backend: str, engine: str) -> None:
    when = "subflow in @bulk or not subflow in @bulk and subflow(sport=1)"
    text = policy("set_backup(on=ip_pair @who)", "record('packets')", when=when, engine=engine)
    with load(text + KEPT.format(lru=str(hook == "egress").lower()), hook, backend) as runner:
        for data, matched in ((_ack("10.0.0.1"), ("one",)), (_ack("10.0.0.3"), ())):
            assert runner.run(data).matched == matched
        runner.store("map", "who").delete(next(runner.store("map", "who").keys()))
        result = runner.run(_ack("10.0.0.1"))
        assert (result.matched, result.reason) == (("one",), "no_value")


def _ack(source: str) -> bytes:
    return build(src=source, dst="10.0.0.2", sport=40000, dport=5001, options=[ACK])


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "in.pcap"
    records = (struct.pack("<4I", n, 0, len(one), len(one)) + one for n, one in enumerate(CAPTURED))
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    return str(path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_trace_tells_the_same_on_every_kernel(
    emptcp: Callable[..., Any], write: Callable[..., str], capture: str, hook: str, engine: str
) -> None:
    """The golden file is what it told where it was written; `EMPTCP_WRITE_GOLDEN=1` writes it anew."""
    path = write(policy(ACTORS[0], when=EIGHT_WHEN, engine=engine) + TWO)
    said = emptcp("trace", capture, "--policy", path, "--hook", hook, "--json")
    assert said.code == 0, said.err
    told = "".join(_without_duration(line) for line in said.out.splitlines())
    golden = GOLDEN / f"{hook}.jsonl"
    if os.environ.get("EMPTCP_WRITE_GOLDEN"):
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8")


def _without_duration(line: str) -> str:
    told = json.loads(line)
    assert told.pop("duration_ns") > 0
    return f"{json.dumps(told)}\n"


@pytest.mark.parametrize(
    ("backend", "engine"),
    [("xdp", "fused"), ("xdp", "tail"), ("xdp-generic", "fused"), ("tc", "fused"), ("tc", "tail")],
)
def test_a_table_is_applied_listed_tuned_and_removed(
    emptcp: Callable[..., Any], write: Callable[..., str], netns: Callable[[], str], backend: str, engine: str
) -> None:
    where = netns()
    path = write(policy("record('packets')", when="subflow(dport=5001)", backend=backend, engine=engine))
    ip_batch(["link set left0 up", "link set right0 up"], netns=where)
    applied = emptcp("apply", path, "--netns", where)
    assert applied.code == 0, applied.err
    assert _links() == {"ingress": _link("tc" if backend == "tc" else "xdp"), "egress": _link("tc")}
    for device in ("right0", "left0"):
        _send(where, device, DATA)
    assert _packets(emptcp) == {"ingress": 1, "egress": 1}
    assert emptcp("tune", "one", "subflow", "dport=5002").code == 0
    _send(where, "right0", DATA)
    assert _packets(emptcp) == {"ingress": 1, "egress": 1}
    assert emptcp("remove", "everywhere").code == 0
    assert running.everything() == {}


def _links() -> dict[str, str]:
    """Return the kind of link that holds each hook's program; empty without one."""
    found = running.everything().values()
    return {one.description.hook: one.link.info.kind if one.link is not None else "" for one in found}


def _link(kind: str) -> str:
    """Return the link that this kernel has for XDP or TC; before TCX, a clsact filter needs none."""
    link = {"xdp": "xdp", "tc": "tcx"}[kind]
    return link if features.has("xdp_link" if kind == "xdp" else "tcx") else ""


def _send(netns: str, device: str, frame: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device, 0))
            sender.send(frame)

    namespaces.call(namespaces.resolve(netns), send)


def _packets(emptcp: Callable[..., Any]) -> dict[str, int]:
    """Return what `record` was given, by hook."""
    (table,) = json.loads(emptcp("list", "--json").out)["tables"]
    return {
        program["hook"]: stage["packets"]
        for program in table["programs"]
        for stage in program["policies"][0]["stages"]
        if stage["id"] == "record"
    }


def test_the_doctor_tells_a_reason_for_all_that_is_missing(emptcp: Callable[..., Any]) -> None:
    said = emptcp("doctor", "--json")
    assert said.code == 0, said.out
    checks = json.loads(said.out)["checks"]
    assert {check["name"] for check in checks} >= set(features.FEATURES)
    assert all(check["text"] for check in checks)


UNTOLD = {
    *("bpf_bprm_opts_set", "bpf_ima_inode_hash", "bpf_ima_file_hash"),
    *("bpf_get_func_arg", "bpf_get_func_ret", "bpf_get_func_arg_cnt"),
}
"""Helpers of security hooks and traced functions alone: libbpf can't ask for these kinds of programs."""


BACKPORTED = {("bpf_get_netns_cookie", "sched_cls"): (6, 12)}
"""What a stable release got later than its first version: the lowest such release that is tried here."""


def test_this_kernel_has_the_helpers_that_came_until_it_and_no_others() -> None:
    """What `emptcp doctor` derives the lowest kernel of a plugin from."""
    kernel = tuple(map(int, os.uname().release.split(".")[:2]))
    # The probe takes a kind of programs that the kernel has not for one that has every helper.
    kinds_here = [kind for kind in kinds.PROGRAMS if _asked(kind, since.BEYOND) == 0]
    assert {"xdp", "sched_cls", "sock_ops"} <= set(kinds_here)
    for number, (name, version) in since.HELPERS.items():
        if name not in UNTOLD:
            assert any(_asked(kind, number) for kind in kinds_here) == (kernel >= version), name
    for (number, kind), (name, version) in since.IN_KINDS.items():
        if kind in kinds_here:
            since_here = min(version, BACKPORTED.get((name, kind), version))
            assert _asked(kind, number) == (kernel >= since_here), f"{name} in {kind}"


def _asked(kind: str, number: int) -> int:
    """Return 1 if programs of a kind have a helper, 0 if not, an error where that can't be asked."""
    probe = library().function("libbpf_probe_bpf_helper")
    return int(probe(kinds.PROGRAMS[kind], number, library().ffi.NULL))


def test_the_doctor_tells_the_lowest_kernel_of_each_plugin(emptcp: Callable[..., Any]) -> None:
    checks = json.loads(emptcp("doctor", "--json").out)["checks"]
    told = {check["text"]: check["state"] for check in checks if check["name"] == "lowest_kernel"}
    for name in {stage.plugin for stage in Catalog.of_enabled()}:
        assert told[f"{name} runs on Linux 5.10 and later"] == "ok"
