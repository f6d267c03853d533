# SPDX-License-Identifier: Apache-2.0
"""Samples the subflows of a running transfer in a thread of its own, ten times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from emptcp.errors import EmptcpError
from emptcp.lab.host import Host
from emptcp.lab.measure import Sample
from emptcp.lab.meter import Meter, Reading
from emptcp.lab.path import LabPath

EVERY = 0.1


class Recorder:
    """Keeps samples of host ``a``'s subflows, one per path, from ``begin`` to ``end``."""

    def __init__(self, a: Host, paths: Iterable[LabPath], family: int) -> None:
        self.samples: list[Sample] = []
        self.subflows: dict[str, str] = {}
        self.begun = 0.0
        self._paths = {path.a.address(family): path.name for path in paths}
        self._meter = Meter(a)
        self._thread = threading.Thread(target=self._record, name="recorder", daemon=True)
        self._stop = threading.Event()
        self._zero: dict[str, int] = {}
        self._failure: Exception | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._meter.close()

    @property
    def now(self) -> float:
        """Seconds since the recording began."""
        return time.monotonic() - self.begun

    def begin(self, patience: float = 5.0) -> None:
        """Wait until every path has a subflow, then start. Raises EmptcpError when one has none."""
        deadline = time.monotonic() + patience
        while len(readings := self._by_path()) < len(self._paths):
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(set(self._paths.values()) - set(readings)))
                raise EmptcpError(
                    f"no subflow on {missing} within {patience:g} s",
                    fix="See whether MPTCP is on: sysctl net.mptcp.enabled",
                )
            time.sleep(0.02)
        self.subflows = {path: _endpoints(reading) for path, reading in readings.items()}
        self._zero = {path: reading.acked for path, reading in readings.items()}
        self.begun = time.monotonic()
        self.samples.append(self._sample(readings))
        self._thread.start()

    def end(self) -> None:
        """Take a last sample and stop; the samples stay."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise EmptcpError when the recording has failed meanwhile."""
        if self._failure is not None:
            raise EmptcpError(f"the subflows can't be read any more: {self._failure}")

    def _record(self) -> None:
        try:
            stopped = False
            while not stopped:
                stopped = self._stop.wait(EVERY)
                self.samples.append(self._sample(self._by_path()))
        except (EmptcpError, OSError) as error:
            self._failure = error

    def _by_path(self) -> dict[str, Reading]:
        ours = (reading for reading in self._meter.read() if reading.local in self._paths)
        return {self._paths[reading.local]: reading for reading in ours}

    def _sample(self, readings: dict[str, Reading]) -> Sample:
        # A subflow that was closed has said its last: it keeps what it had, and is no backup.
        last = self.samples[-1].acked if self.samples else dict.fromkeys(self._zero, 0)
        fresh = {path: reading.acked - self._zero[path] for path, reading in readings.items()}
        return Sample(
            at=self.now,
            acked={path: max(last[path], fresh.get(path, 0)) for path in self._zero},
            backup={path: path in readings and readings[path].backup for path in self._zero},
            rtt={path: reading.rtt for path, reading in readings.items()},
        )


def _endpoints(reading: Reading) -> str:
    return (
        f"{_endpoint(reading.local, reading.local_port)} > {_endpoint(reading.remote, reading.remote_port)}"
    )


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
