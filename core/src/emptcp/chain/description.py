# SPDX-License-Identifier: Apache-2.0
"""What a running program says of itself: policies, stages, and where their counters and parameters are.

Core puts a description into a small map that the program refers to. Whoever holds the program holds its
description, so `list`, `tune` and the next `apply` read what is in force from the kernel itself.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from typing import Any

from emptcp.chain.layout import Slot

SCHEMA = 1


@dataclass(frozen=True)
class StageRecord:
    """One running stage. ``text`` is how a file would say it.

    ``counter`` is its slot in the counters, ``offset`` and ``size`` are of its struct in the parameter value,
    ``entries`` are the offsets there of its entries of the chain context (none without parameters),
    ``imports`` are the plugins whose maps it borrows.
    """

    id: str
    kind: str
    plugin: str
    name: str
    text: str
    counter: int
    offset: int = 0
    size: int = 0
    entries: tuple[int, ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def slot(self) -> Slot | None:
        """Where its parameters stand; ``None`` when it has none."""
        return Slot(self.offset, self.size) if self.size else None


@dataclass(frozen=True)
class PolicyRecord:
    """One running policy. ``source`` is a policy file with just this policy: enough to build it again.

    ``switch`` is the offset of its switch in the parameter value (0: a program of before has none).
    """

    table: str
    name: str
    source: str
    stages: tuple[StageRecord, ...]
    switch: int = 0

    @property
    def home(self) -> str:
        """What the names of its stages begin with."""
        return f"{self.table}/{self.name}"


@dataclass(frozen=True)
class ChainRecord:
    """One running chain that policies of its table go to by name: its stages are theirs together."""

    table: str
    name: str
    stages: tuple[StageRecord, ...]

    @property
    def home(self) -> str:
        """What the names of its stages begin with."""
        return f"{self.table}/@{self.name}"


@dataclass(frozen=True)
class Description:
    """One running program.

    ``reason`` says why it got its back-end; ``sockets`` are the socket companions that its actors need
    (:mod:`emptcp.chain.sockets`); ``following`` is the first counter slot that was never given.
    """

    hook: str
    backend: str
    reason: str
    device: str
    ifindex: int
    netns: str
    cookie: int
    policies: tuple[PolicyRecord, ...] = ()
    chains: tuple[ChainRecord, ...] = ()
    companions: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    state_slots: dict[str, int] = dataclasses.field(default_factory=dict)
    following: int = 1
    fingerprint: str = ""
    engine: str = "fused"

    def encode(self) -> bytes:
        """Return the bytes kept in the description map."""
        return zlib.compress(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}).encode())

    @classmethod
    def decode(cls, value: bytes) -> Description:
        """Read a description map's value (padded with zeros at its end)."""
        data = json.loads(zlib.decompressobj().decompress(value))
        data.pop("schema")
        data["policies"] = tuple(PolicyRecord(**_with_stages(entry)) for entry in data["policies"])
        data["chains"] = tuple(ChainRecord(**_with_stages(entry)) for entry in data["chains"])
        data["companions"] = tuple(data["companions"])
        data["sockets"] = tuple(data["sockets"])
        return cls(**data)

    def stages(self) -> dict[str, StageRecord]:
        """Return every stage by ``table/policy/stage`` or ``table/@chain/stage``."""
        return {f"{one.home}/{stage.id}": stage for one in self.homes for stage in one.stages}

    @property
    def homes(self) -> tuple[PolicyRecord | ChainRecord, ...]:
        """All that stages stand in."""
        return (*self.policies, *self.chains)


def _with_stages(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"stages": tuple(_stage(stage) for stage in data["stages"])}


def _stage(data: dict[str, Any]) -> StageRecord:
    return StageRecord(**data | {"entries": tuple(data["entries"]), "imports": tuple(data["imports"])})
