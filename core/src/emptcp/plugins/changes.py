# SPDX-License-Identifier: Apache-2.0
"""What an actor changes in packets, as its manifest says it::

    modifies = ["window", "mp_prio", "insert $kind", "remove $option"]

A field of the TCP, IP or Ethernet header, or options: those of an MPTCP subtype, or those that a parameter
tells, a kind of TCP options or MPTCP subtypes. They come, go and change; with a verb before them, only that.
Nothing else of a packet may be otherwise behind the actor: tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emptcp.packet.subtype import Subtype

FIELDS = ("window", "seq", "ack", "flags", "urgent", "ecn", "ttl", "source_mac")
VERBS = ("insert", "rewrite", "remove")
SUBTYPES = tuple(subtype.name.lower() for subtype in Subtype)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry: a field (no verbs), an MPTCP subtype by its name, or ``parameter``, which names options."""

    what: str
    verbs: frozenset[str] = frozenset()
    parameter: bool = False


def words(parameters: Iterable[str]) -> Iterator[str]:
    """Yield all that an actor with these parameters may say."""
    yield from FIELDS
    for what in (*SUBTYPES, *(f"${name}" for name in parameters)):
        yield from (what, *(f"{verb} {what}" for verb in VERBS))


def parse(word: str) -> Change:
    """Read one of :func:`words`."""
    if word in FIELDS:
        return Change(word)
    verb, _, what = word.rpartition(" ")
    return Change(what.lstrip("$"), frozenset({verb} if verb else VERBS), what.startswith("$"))
