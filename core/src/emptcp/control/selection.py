# SPDX-License-Identifier: Apache-2.0
"""Which subflows a controller is handed: those that the ``when`` of its policies selects."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from emptcp.chain import filling
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.mptcp.acknowledge import End, segment
from emptcp.mptcp.measured import IDENTITY
from emptcp.mptcp.sockets import RECORD, Subflow, unpack
from emptcp.packet.mptcp import Dss
from emptcp.policy import model, values

if TYPE_CHECKING:
    from emptcp.chain.pins import Pins
    from emptcp.plugins.catalog import Catalog

AGAIN = 5.0
"""Seconds after which subflows are asked about again, where the expression looks into sets."""


class Selection:
    """Asks the policy's own program, by trial runs, once for each subflow. A context manager by ``close``."""

    def __init__(self, tree: Pins, table: model.Table, policy: model.Policy, catalog: Catalog) -> None:
        self._tree, self._table, self._policy, self._catalog = tree, table, policy, catalog
        self._to: End = "us" if policy.hooks == ("ingress",) else "peer"
        self._known: dict[bytes, bool] = {}
        self._runner: Runner | None = None
        self._changes = any(isinstance(leaf, model.InSet) for leaf in model.leaves(policy.when))
        self._asked = time.monotonic()
        if policy.when is not None:
            self._runner = self._load()

    def of(self, records: bytes) -> bytes:
        """Return the records of the subflows that are selected."""
        if self._runner is None:
            return records
        if self._changes and time.monotonic() - self._asked > AGAIN:
            self._begin_again()
        size, known = RECORD.size, {}
        chosen = []
        for start in range(0, len(records), size):
            record = records[start : start + size]
            identity = record[:IDENTITY]
            found = self._known.get(identity)
            known[identity] = found if found is not None else self._ask(next(unpack(record)))
            if known[identity]:
                chosen.append(record)
        self._known = known
        return b"".join(chosen)

    def close(self) -> None:
        """Unload the program."""
        if self._runner is not None:
            self._runner.close()

    def _load(self) -> Runner:
        (hook,) = self._policy.hooks
        bound = bind(self._table, self._policy, hook, self._catalog, values.any_device)
        return Runner([bound], hook, "tc", "none", contents=filling.contents(self._tree))

    def _begin_again(self) -> None:
        self.close()
        self._runner, self._asked = self._load(), time.monotonic()
        self._known.clear()

    def _ask(self, subflow: Subflow) -> bool:
        assert self._runner is not None
        ack = segment(subflow, [Dss(data_ack=1)], self._to)
        data = segment(subflow, [Dss(data_ack=1, dsn=1, data_length=100)], self._to, bytes(100))
        return any(bool(self._runner.run(frame).matched) for frame in (ack, data))
