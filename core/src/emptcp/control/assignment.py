# SPDX-License-Identifier: Apache-2.0
"""What a controller's process is started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emptcp.control.path import Path
from emptcp.control.wishes import Settings
from emptcp.hooks.namespaces import Namespace
from emptcp.policy import model


@dataclass(frozen=True)
class Hop:
    """Where a controller looks by itself at what passes, as the ``when`` of ``policy`` selects it."""

    namespace: Namespace
    table: model.Table
    policy: model.Policy


@dataclass(frozen=True)
class Assignment:
    """The first message to a controller's process, pickled.

    ``entry`` is ``module:Class`` of the plugin, whose ``packages`` are imported from their sources alone;
    ``settings`` are those in force, ``targets`` what may be set (:func:`emptcp.chain.controllers.targets`).
    ``interval`` is in seconds, ``None`` where the class decides. ``state_file`` is where it remembers; empty:
    nowhere. With a ``hop`` no records are sent to it.
    """

    entry: str
    packages: Sequence[str]
    parameters: Mapping[str, Any]
    paths: Sequence[Path]
    interval: float | None
    targets: Sequence[str]
    settings: Mapping[bytes, Settings] = field(default_factory=dict)
    state_file: str = ""
    hop: Hop | None = None
