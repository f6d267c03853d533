# SPDX-License-Identifier: Apache-2.0
"""`emptcp explain` on a live connection: answers of selectors, verdicts, and why a policy does nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from emptcp.chain import trips
from emptcp.hooks import namespaces
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, receive_exactly
from emptcp.lab.topology import Lab, two_hosts
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

TABLE = """
table = "t"
[[policy]]
name = "both"
hook = "ingress"
dev = "path1"
when = "subflow(sport={port}) and not packet_type('syn')"
do = ["record('packets')"]
[[policy]]
name = "data only"
hook = "ingress"
dev = "path1"
when = "packet_type('data') and subflow in @some"
do = ["goto last"]
[[policy]]
name = "after the end"
hook = "ingress"
dev = "path1"
when = "subflow(sport={port})"
do = ["record('packets')"]
[[policy]]
name = "other port"
hook = "egress"
dev = "path1"
when = "subflow(dport=1) or subflow(dport=2)"
do = ["record('packets')"]
[[policy]]
name = "other device"
hook = "egress"
dev = "path2"
do = ["record('packets')"]
[chain.last]
do = ["drop()"]
[set.some]
key = "subflow"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts(link="veth", name=f"x{os.getpid()}") as made:
            yield made


@pytest.fixture
def port(lab: Lab) -> Iterator[int]:
    """A connection of two subflows to this port of host b."""
    address = lab.paths[0].b.address4
    with ExitStack() as opened:
        listener = opened.enter_context(lab.b.call(lambda: listen("0.0.0.0", timeout=30)))
        client = opened.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        client.connect((address, listener.getsockname()[1]))
        server = opened.enter_context(listener.accept()[0])
        client.sendall(b"hello")
        receive_exactly(server, 5)
        wait_until(lambda: mptcp_info(client)[1] == 2)
        yield listener.getsockname()[1]


def subflow_of(emptcp: Any, lab: Lab, address: str) -> dict[str, Any]:
    """Return host a's subflow from an address, which programs have seen packets of."""
    found = json.loads(emptcp("connections", "--json", "--netns", lab.a.netns).out)["subflows"]
    return next(one for one in found if one["endpoints"][0][0] == address and one["token"])


def test_everything_that_a_policy_may_say(
    lab: Lab, port: int, emptcp: Any, write: Callable[..., str]
) -> None:
    applied = emptcp("apply", write(TABLE.format(port=port)), "--netns", lab.a.netns, "--guard-window", "0")
    assert applied.code == 0, applied.err
    ours = subflow_of(emptcp, lab, lab.paths[0].a.address4)
    subflow = "-".join(f"{address}:{number}" for address, number in ours["endpoints"])

    def explain(what: str = subflow) -> dict[str, Any]:
        said = emptcp("explain", what, "--json", "--netns", lab.a.netns)
        assert said.code == 0, said.err
        data = json.loads(said.out)
        assert data["schema"] == 1
        return {one["policy"]: one for one in data["subflows"][0]["policies"]} | {"": data}

    found = explain()
    assert found["both"]["runs"] == {"ack": True, "data": True}
    assert found["both"]["verdict"] == {"ack": "NEXT", "data": "NEXT"}
    answers = {
        stage["id"]: stage["answer"] for stage in found["both"]["stages"] if stage["kind"] == "selector"
    }
    assert answers == {"subflow": {"ack": True, "data": True}, "packet_type": {"ack": False, "data": False}}
    # Not in the set yet; what is decided already is not asked.
    assert found["data only"]["runs"] == {"ack": False, "data": False}
    assert "subflow in @some says no" in found["data only"]["why_not"]
    assert found["data only"]["stages"][1]["answer"] == {"ack": None, "data": False}
    assert found["other port"]["why_not"] == "subflow(dport=1) says no, subflow(dport=2) says no"
    (subflow_data,) = found[""]["subflows"]
    assert (subflow_data["state"], subflow_data["token"]) == ("established", ours["token"])
    assert [one["policy"] for one in subflow_data["elsewhere"]] == ["other device"]
    assert subflow_data["elsewhere"][0]["places"] == ["egress of path2"]

    assert emptcp("set", "add", "some", subflow).code == 0
    found = explain()
    assert found["data only"]["verdict"] == {"ack": None, "data": "DROP"}
    assert found["after the end"]["runs"] == {"ack": True, "data": False}

    # Off by hand, by the guard, and all of it.
    assert emptcp("off", "t", "both").code == 0
    assert explain()["both"]["why_not"] == "it is off; on again by: emptcp on t 'both'"
    cookie = namespaces.resolve(lab.a.netns).cookie
    trips.note(trips.Trip("t", "both", lab.a.netns, cookie, 1.0, {"fallback": 3}))
    assert "the guard switched off once" in explain()["both"]["why_not"]
    assert emptcp("off", "t").code == 0
    assert explain()["after the end"]["why_not"] == "its table is off; on again by: emptcp on t"
    assert emptcp("on", "t").code == 0
    assert emptcp("off").code == 0
    data = explain()[""]
    assert (data["off"], data["subflows"][0]["policies"]) == (True, [])
    assert emptcp("on").code == 0


def test_for_the_eye_by_token_and_by_a_beginning(
    lab: Lab, port: int, emptcp: Any, write: Callable[..., str]
) -> None:
    assert (
        emptcp("apply", write(TABLE.format(port=port)), "--netns", lab.a.netns, "--guard-window", "0").code
        == 0
    )
    token = subflow_of(emptcp, lab, lab.paths[0].a.address4)["token"]
    whole = emptcp("explain", token[:6], "--netns", lab.a.netns)
    assert whole.code == 0, whole.err
    # Both subflows of the connection.
    assert whole.out.count(f"of connection {token}: established, not backup") == 2
    assert "ingress of path1\n    policy 'both' of table t runs: ack NEXT, data NEXT" in whole.out
    assert "policy 'other device' of table t is elsewhere: egress of path2" in whole.out
    for wrong, why in (
        ("10.", "is the beginning of several subflows"),
        ("zzz", "there is no subflow or token"),
    ):
        refused = emptcp("explain", wrong, "--netns", lab.a.netns)
        assert refused.code == 1
        assert why in refused.err


def test_a_host_without_the_socket_is_told_what_programs_saw(
    lab: Lab, port: int, emptcp: Any, write: Callable[..., str]
) -> None:
    """What is left of a subflow that was reset is what a host in between has of it: both directions."""
    text = TABLE.format(port=port)
    assert emptcp("apply", write(text), "--netns", lab.a.netns, "--guard-window", "0").code == 0
    ours = subflow_of(emptcp, lab, lab.paths[0].a.address4)
    address, number = ours["endpoints"][0]
    lab.a.run(["ss", "-K", "src", address, "sport", f"= {number}"])
    ends = "-".join(f"{end}:{one}" for end, one in ours["endpoints"])

    def explained() -> Any:
        return json.loads(emptcp("explain", ends, "--json", "--netns", lab.a.netns).out)["subflows"][0]

    wait_until(lambda: explained()["state"] is None)
    said = explained()
    both = {one["source"]: one for one in said["policies"] if one["policy"] == "both"}
    assert both.keys() == {f"{end}:{one}" for end, one in ours["endpoints"]}
    assert both[f"{address}:{number}"]["why_not"] == f"subflow(sport={port}) says no"
    assert both[f"{lab.paths[0].b.address4}:{port}"]["runs"] == {"ack": True, "data": True}
