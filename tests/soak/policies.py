# SPDX-License-Identifier: Apache-2.0
"""Random policy files in which every first-party selector and actor may stand, and harms no connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

SELECTORS = (
    "address(any=10.0.0.0/8)",
    "connection(token={token})",
    "ip_pair(saddr=10.0.0.0/8, daddr=10.0.{path}.0/24)",
    "option(kind=253, exid=0xe0e1)",
    "option(kind=8)",
    "packet_type('data', 'ack', 'add_addr')",
    "packet_type('dss')",
    "sample(every={some})",
    "sample(share={some}%, seed={some})",
    "sequence(first=1, last={many})",
    "sequence(space=ssn, first={many}, last=1)",
    "subflow(saddr=10.0.{path}.0/24)",
)

ACTORS = (
    "add_option(exid=0xe0e1)",
    "add_option(exid=0xe0e1, value={some}, size={size})",
    "add_subflow()",
    "blk_subflow(joins={truth})",
    "get_connect()",
    "get_subflow()",
    "rate_limit(rate={some}mbit)",
    "rate_limit(rate={some}mbit, mode=police, per=dev, burst=200ms)",
    "rate_limit(rate={some}mbit, mode=mark, per=policy)",
    "rate_limit(rate={some}mbit, mode=window, per=connection)",
    "record('packets', 'bytes', 'size')",
    "record('goodput', 'window', 'retransmissions')",
    "remove_option(option=mp_prio)",
    "remove_option(kind=8, unsafe=true)",
    "set_backup(on={truth})",
    "steer(to=[path1, path2], by=index)",
    "steer(to=[path{path}], by=hash, mode=mark)",
)

DROP = ("packet_type('data') and sample(every={many})", "drop()")
"""A drop within guard rails: now and then a packet with data, which TCP makes good."""

TABLE = """
table = "{table}"
engine = "{engine}"

[set.chosen]
key = "{key}"
size = {some}
"""

POLICY = """
[[policy]]
name = "{name}"
hook = ["ingress", "egress"]
dev = ["path{path}"]
when = "{when}"
do = [{do}]
"""

KEYS = {
    "subflow": "10.0.1.1:{port}-10.0.1.2:443",
    "ip_pair": "10.0.1.1-10.0.{path}.2",
    "saddr": "10.{some}.0.0/16",
    "connection": "{token}",
}
"""Key of a set -> an entry of it."""


def stages() -> set[str]:
    """Return the selectors and actors that may stand in a file."""
    return {one.partition("(")[0] for one in (*SELECTORS, *ACTORS, DROP[1])}


class Writer:
    """Writes files for two paths and connections with these tokens, one after the other, from a seed."""

    def __init__(self, random: Random, tokens: Sequence[int]) -> None:
        self.random = random
        self._tokens = tokens

    def table(self, name: str, wanted: Collection[str]) -> str:
        """Return a file with one or two policies, of stages in ``wanted`` as long as there are some."""
        key = self.random.choice([*KEYS])
        text = self._filled(TABLE, table=name, engine=self.random.choice(("fused", "tail")), key=key)
        for number in range(self.random.randint(1, 2)):
            text += self._policy(f"p{number}", key, wanted)
        return text

    def actor(self, wanted: Collection[str] = ()) -> str:
        """Return an actor that may stand anywhere."""
        return self._filled(self._one_of(ACTORS, wanted))

    def entry(self, key: str) -> str:
        """Return an entry of a set with this key."""
        return self._filled(KEYS[key])

    def _policy(self, name: str, key: str, wanted: Collection[str]) -> str:
        when, actors = self._when(key, wanted), [self.actor(wanted) for _ in range(self.random.randint(1, 2))]
        if self.random.random() < 0.1 or "drop" in wanted:
            when, actors = DROP[0], [*actors[:1], DROP[1]]
        do = ", ".join(f'"{actor}"' for actor in actors)
        return self._filled(POLICY, name=name, when=self._filled(when), do=do)

    def _when(self, key: str, wanted: Collection[str]) -> str:
        first = self._one_of(SELECTORS, wanted)
        if wanted:  # let packets pass the actors, whatever the selector says
            return f"{first} or packet_type('dss')"
        second = f"{key} in @chosen" if self.random.random() < 0.5 else self.random.choice(SELECTORS)
        form = self.random.choice(("{0}", "not {0}", "{0} and {1}", "{0} or {1}", "not ({0} and {1})"))
        return form.format(first, second)

    def _one_of(self, all_of_them: Sequence[str], wanted: Collection[str]) -> str:
        preferred = [one for one in all_of_them if one.partition("(")[0] in wanted]
        return self.random.choice(preferred or all_of_them)

    def _filled(self, text: str, **given: str) -> str:
        chance = self.random
        values = {
            "token": chance.choice(self._tokens),
            "path": chance.choice("12"),
            "some": chance.randint(20, 90),
            "many": chance.randint(100, 5000),
            "size": chance.choice((1, 4)),
            "port": chance.randint(1024, 65535),
            "truth": chance.choice(("true", "false")),
        }
        return text.format(**values | given)
