# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin for authors of emptcp plugins: run packets through a policy, attaching nothing.

Installed with the SDK, it gives three fixtures. ``backend`` runs the test once per back-end, each time with
another ``engine``, and ``trial`` makes policies for them::

    pytestmark = pytest.mark.kernel

    def test_the_window_is_capped(trial):
        policy = trial("cap_window(bytes=64k)")
        result = policy.run(build(window=0xFFFF))
        assert decode(result.data).tcp.window == 1024

``policy`` is an ``emptcp.chain.dryrun.Runner``: the very program that would be attached, run by
BPF_PROG_TEST_RUN with maps of its own. It needs root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Runner
    from emptcp.chain.plan import BoundPolicy

    Trial = Callable[..., Runner]

_FILE = """
table = "trial"
[[policy]]
name = "trial"
hook = "{hook}"
dev = "trial0"
{when}
do = [{do}]
"""


@pytest.fixture(params=["xdp", "tc"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each back-end of ingress in turn: ``xdp`` and ``tc``."""
    return str(request.param)


@pytest.fixture
def engine(backend: str) -> str:
    """The engine that goes with a back-end: ``fused`` with ``xdp``, ``tail`` with ``tc``.

    So a table of packets passes both engines and both back-ends in two runs. That engines agree on each
    back-end, core's own tests show for any fragment.
    """
    return "fused" if backend == "xdp" else "tail"


@pytest.fixture
def trial(backend: str, engine: str) -> Iterator[Trial]:
    """Make policies: ``trial(*actors, when="", hook="ingress", link="ethernet", netns=None)``.

    Egress is TC, whatever the back-end, and so are stages that work at TC only. ``netns`` is the namespace of
    the devices that a stage names, by default the test's own.
    """
    with ExitStack() as made:

        def make(
            *do: str,
            when: str = "",
            hook: str = "ingress",
            link: str = "ethernet",
            netns: str | None = None,
        ) -> Runner:
            bound = _bound(do, when, hook, netns)
            works = hook == "ingress" and all(backend in stage.backends for stage in bound.everything)
            return made.enter_context(_runner(bound, hook, backend if works else "tc", link, engine))

        yield make


def policy_file(*do: str, when: str = "", hook: str = "ingress") -> str:
    """Return the text of a policy file with one policy ``trial`` in table ``trial``."""
    quoted = ", ".join(f'"{actor}"' for actor in do)
    return _FILE.format(hook=hook, when=f'when = "{when}"' if when else "", do=quoted)


def _bound(do: tuple[str, ...], when: str, hook: str, netns: str | None) -> BoundPolicy:
    # Here and not above: emptcp is built with this package, which therefore can't need it.
    from emptcp.chain import placement
    from emptcp.chain.bind import bind
    from emptcp.hooks import namespaces
    from emptcp.plugins.catalog import Catalog
    from emptcp.policy.file import loads

    table = loads(policy_file(*do, when=when, hook=hook))
    devices = placement.indexes(namespaces.resolve(netns))
    return bind(table, table.policies[0], hook, Catalog.of_enabled(), devices)


def _runner(bound: BoundPolicy, hook: str, backend: str, link: str, engine: str) -> Runner:
    from emptcp.chain.dryrun import Runner

    return Runner([bound], hook, backend, link, engine)
