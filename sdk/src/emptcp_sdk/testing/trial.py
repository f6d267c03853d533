# SPDX-License-Identifier: Apache-2.0
"""A policy as a loaded program that is attached to nothing, at one place: hook, back-end, engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Runner
    from emptcp.chain.plan import BoundPolicy
    from emptcp.plugins.catalog import Catalog

HOOKS = ("ingress", "egress")
BACKENDS = {"ingress": ("xdp", "tc"), "egress": ("tc",)}
ENGINES = ("fused", "tail")

_FILE = """
table = "trial"
[[policy]]
name = "trial"
hook = "{hook}"
dev = "{dev}"
{when}
do = [{do}]
"""


@dataclass(frozen=True)
class Place:
    """Where a program would be attached, and by which engine it is made."""

    hook: str
    backend: str
    engine: str

    def __str__(self) -> str:
        return f"{self.hook}, {self.backend}, {self.engine}"


def policy_file(*do: str, when: str = "", hook: str = "ingress", dev: str = "trial0") -> str:
    """Return the text of a policy file with one policy ``trial`` in table ``trial``."""
    quoted = ", ".join(f'"{actor}"' for actor in do)
    return _FILE.format(hook=hook, dev=dev, when=f'when = "{when}"' if when else "", do=quoted)


def bound(
    do: Sequence[str], when: str, hook: str, netns: str | None = None, catalog: Catalog | None = None
) -> BoundPolicy:
    """Bind a policy of these actors for one hook.

    ``netns`` has the devices that stages name, ``catalog`` the stages; by default those of enabled plugins.
    """
    # Here and not above: emptcp is built with this package, which therefore can't need it.
    from emptcp.chain import placement
    from emptcp.chain.bind import bind
    from emptcp.hooks import namespaces
    from emptcp.plugins.catalog import Catalog
    from emptcp.policy.file import loads

    table = loads(policy_file(*do, when=when, hook=hook))
    devices = placement.indexes(namespaces.resolve(netns))
    return bind(table, table.policies[0], hook, catalog or Catalog.of_enabled(), devices)


def runner(policy: BoundPolicy, place: Place, link: str = "ethernet") -> Runner:
    """Load a bound policy for a place. Needs root."""
    from emptcp.chain.dryrun import Runner

    return Runner([policy], place.hook, place.backend, link, place.engine)


def places(policy: BoundPolicy, hook: str) -> Iterator[Place]:
    """Yield the places of a hook at which all stages of a policy work."""
    for backend in BACKENDS[hook]:
        if all(backend in stage.backends for stage in policy.everything):
            yield from (Place(hook, backend, engine) for engine in ENGINES)


def hooks(do: Sequence[str], when: str) -> tuple[str, ...]:
    """Return the hooks on which all stages of a policy of these actors work, as their manifests say."""
    from emptcp.plugins.catalog import Catalog
    from emptcp.policy import model
    from emptcp.policy.file import loads

    (policy,) = loads(policy_file(*do, when=when)).policies
    selectors = (leaf.stage for leaf in model.leaves(policy.when) if not isinstance(leaf, model.InSet))
    actors = (step for step in policy.do if isinstance(step, model.StageSpec))
    catalog = Catalog.of_enabled()
    kinds = [catalog.bind(spec).type for spec in (*selectors, *actors)]
    return tuple(hook for hook in HOOKS if all(hook in kind.declaration.hooks for kind in kinds))
