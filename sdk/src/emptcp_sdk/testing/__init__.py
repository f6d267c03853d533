# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin for authors of emptcp plugins; it comes with ``emptcp-sdk[testing]``.

``run_packet`` gives a packet to a policy on every hook, back-end and engine, and attaches nothing::

    def test_the_window_is_capped(run_packet):
        result = run_packet(build(window=0xFFFF), "cap_window(bytes=64k)")
        assert decode(result.data).tcp.window == 1024

A table of packets (:class:`Row`) is a list of tests; ``pytest --packet-times`` tells what each row costs::

    @pytest.mark.parametrize("row", TABLE, ids=str)
    def test_packets(row, run_packet):
        row.check(run_packet, "cap_window(bytes=64k)")

``lab`` is two hosts with real MPTCP sockets::

    def test_a_connection_lives_on(lab):
        lab.apply(lab.a, policy_file("cap_window(bytes=64k)", hook="egress", dev="path*"))
        assert lab.transfer().intact

``simulated_connection`` is a connection without a kernel, for a controller's unit tests; it needs no root::

    def test_the_slow_subflow_is_spared(simulated_connection):
        connection = simulated_connection(
            {"fast": SimulatedSubflow(rtt=0.01, rate=2.5e6), "slow": SimulatedSubflow(rtt=0.2, rate=5e5)}
        )
        connection.run(Spare(), ticks=3, write=100_000)
        assert connection["slow"].backup

``policy`` loads a policy for one back-end and engine at a time, for tests of maps and of single places; the
fixtures ``backend`` and ``engine`` say which. Packets and options are built by :mod:`emptcp_sdk.packets`.

``wait_until`` waits, with patience, for what the kernel or another process does in its own time::

    wait_until(lambda: connection.subflows() == 2)

The plugins that the ``pyproject.toml`` at pytest's root declares are enabled for the tests, whatever
``/etc/emptcp`` says. Packets run in the kernel, so the tests need root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import live, workbench
from . import trial as trials
from .everywhere import Everywhere
from .live import LiveLab
from .simulation import Setting, SimulatedConnection, SimulatedSubflow
from .table import Row
from .times import Times
from .trial import Place, policy_file
from .waiting import wait_until

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Runner

    Policy = Callable[..., Runner]

__all__ = [
    "Everywhere",
    "LiveLab",
    "Row",
    "Setting",
    "SimulatedConnection",
    "SimulatedSubflow",
    "policy_file",
    "wait_until",
]

_TIMES = pytest.StashKey[Times]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--packet-times``."""
    said = "measure every packet that run_packet is given, and report nanoseconds per packet"
    parser.getgroup("emptcp").addoption("--packet-times", action="store_true", help=said)


def pytest_configure(config: pytest.Config) -> None:
    """Make a place for the times."""
    config.stash[_TIMES] = Times()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the times, if any were taken."""
    if config.stash[_TIMES].found:
        terminalreporter.section("nanoseconds per packet")
        terminalreporter.write_line("\n".join(config.stash[_TIMES].lines()))


@pytest.fixture(scope="session")
def plugins_under_test(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """The plugins that the project at pytest's root provides, enabled for this run; often none."""
    plugins = workbench.declared(pytestconfig.rootpath)
    with ExitStack() as made:
        if plugins:
            made.enter_context(workbench.enabled(plugins, tmp_path_factory.mktemp("etc")))
        yield plugins


@pytest.fixture(scope="session")
def needs_root() -> None:
    """Running packets and making hosts needs root."""
    if os.geteuid():
        pytest.fail("this test runs packets in the kernel, which needs root: sudo tox", pytrace=False)


@pytest.fixture
def run_packet(
    request: pytest.FixtureRequest, needs_root: None, plugins_under_test: list[str]
) -> Iterator[Everywhere]:
    """Run packets everywhere: ``run_packet(packet, *do, when="", hooks=(), link="ethernet")``.

    See :class:`~emptcp_sdk.testing.everywhere.Everywhere`.
    """
    times, test = request.config.stash[_TIMES], request.node.name

    def take(place: Place, runner: Runner, packet: bytes) -> None:
        times.take(test, place, runner, packet)

    with Everywhere(take if request.config.getoption("--packet-times") else None) as everywhere:
        yield everywhere


@pytest.fixture
def lab(needs_root: None, plugins_under_test: list[str], tmp_path: Path) -> Iterator[LiveLab]:
    """Two hosts with real MPTCP sockets, joined by two paths; see :class:`~emptcp_sdk.testing.live.LiveLab`.

    Tables that were applied are taken out of force, and the hosts away, behind the test.
    """
    with live.two_hosts(tmp_path / f"emptcp-{os.getpid()}") as made:
        yield made


@pytest.fixture
def simulated_connection() -> type[SimulatedConnection]:
    """Make connections without a kernel: ``simulated_connection({name: SimulatedSubflow(..), ..})``.

    See :class:`~emptcp_sdk.testing.simulation.SimulatedConnection`.
    """
    return SimulatedConnection


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
def policy(backend: str, engine: str, plugins_under_test: list[str]) -> Iterator[Policy]:
    """Load policies: ``policy(*actors, when="", hook="ingress", link="ethernet", netns=None)``.

    What it returns is an ``emptcp.chain.dryrun.Runner``: the very program that would be attached, run by
    BPF_PROG_TEST_RUN with maps of its own. Egress is TC, whatever the back-end, and so are stages that work
    at TC only. ``netns`` is the namespace of the devices that a stage names, by default the test's own.
    """
    with ExitStack() as made:

        def make(
            *do: str,
            when: str = "",
            hook: str = "ingress",
            link: str = "ethernet",
            netns: str | None = None,
        ) -> Runner:
            bound = trials.bound(do, when, hook, netns)
            works = hook == "ingress" and all(backend in stage.backends for stage in bound.everything)
            place = Place(hook, backend if works else "tc", engine)
            return made.enter_context(trials.runner(bound, place, link))

        yield make
