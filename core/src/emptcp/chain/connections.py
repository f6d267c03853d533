# SPDX-License-Identifier: Apache-2.0
"""Tell programs which connection a subflow belongs to: tokens are hashes, which programs can't work out.

Subflows that begin under a program's eyes show their keys; of those that were there before, the sockets of an
end host tell the tokens. See ``emptcp/connection.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from emptcp import pybpf
from emptcp.chain import flows
from emptcp.chain.flows import Head
from emptcp.chain.pins import Pins
from emptcp.mptcp.sockets import Subflow

OBJECT = Path(__file__).parent.parent / "programs" / "flow_tokens.bpf.o"


class Connections:
    """The connections of one namespace as its programs know them. A context manager."""

    def __init__(self, table: pybpf.Map, connections: pybpf.Map) -> None:
        """``table`` is the flow table, ``connections`` the table of tokens."""
        self._flows = table
        maps = {"emptcp_flows": table, "emptcp_connections": connections}
        self._object = pybpf.load_object(OBJECT, maps)
        self._writer = self._object.programs["write_tokens"]

    def close(self) -> None:
        """Unload what writes."""
        self._object.close()

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def see_keys(self, flow: bytes) -> None:
        """Work out the tokens of a flow (a ``struct emptcp_key``) whose keys a program saw."""
        entry = self._flows.lookup(flow)
        if entry is not None:
            self._tell(flow, Head.of(entry))

    def see_all(self) -> None:
        """Work out the tokens of all flows whose keys programs saw."""
        for flow, entry in self._flows.items():
            self._tell(flow, Head.of(entry))

    def see_sockets(self, found: Iterable[Subflow]) -> None:
        """Tell what the sockets of this host say of flows that programs don't know yet."""
        for one in found:
            if not one.token or not one.remote_token:
                continue
            local, remote = (one.local, one.local_port), (one.remote, one.remote_port)
            flow = flows.key(local, remote)
            tokens = one.token, one.remote_token
            if flows.endpoints(flow)[0] != local:
                tokens = one.remote_token, one.token
            entry = self._flows.lookup(flow)
            if entry is None or Head.of(entry).tokens != tokens:
                self.write(flow, tokens)

    def write(self, flow: bytes, tokens: tuple[int, int]) -> bool:
        """Write the tokens of both ends; return whether the flow has an entry that now has them."""
        order = flow + b"".join(token.to_bytes(4, "big") for token in tokens)
        return bool(self._writer.test_run(order).retval)

    def _tell(self, flow: bytes, head: Head) -> None:
        tokens = head.worked_out()
        if tokens is not None and tokens != head.tokens:
            self.write(flow, tokens)


def followed(pins: Pins) -> Iterator[int]:
    """Yield the cookies of the namespaces whose programs ask for connections."""
    for path in sorted(pins.root.glob("[0-9]*/connections")):
        yield int(path.parent.name)


class Following:
    """The connections of every namespace whose programs ask for them, kept open: an answer is waited for."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[tuple[int, ...], ExitStack, Connections]] = {}

    def of(self, pins: Pins, cookie: int) -> Connections:
        """Return a namespace's connections. Those of a flow table of before are given up."""
        with ExitStack() as stack:
            maps = [
                stack.enter_context(pybpf.Map.from_pin(path))
                for path in (pins.flows(cookie), pins.connections(cookie))
            ]
            ids = tuple(one.id for one in maps)
            known = self._open.get(cookie)
            if known is not None and known[0] == ids:
                return known[2]
            self._close(cookie)
            made = stack.enter_context(Connections(*maps))
            self._open[cookie] = ids, stack.pop_all(), made
        return made

    def keep(self, cookies: Iterable[int]) -> None:
        """Give up all but these namespaces."""
        for cookie in self._open.keys() - set(cookies):
            self._close(cookie)

    def is_new(self, cookie: int) -> bool:
        """Return whether nothing was asked of a namespace yet."""
        return cookie not in self._open

    def _close(self, cookie: int) -> None:
        if cookie in self._open:
            self._open.pop(cookie)[1].close()
