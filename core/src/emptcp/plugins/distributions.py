# SPDX-License-Identifier: Apache-2.0
"""Names of distributions: how two are compared, and which ones are the project's own."""

from __future__ import annotations

FIRST_PARTY = frozenset(
    {
        "emptcp-actor-add-option",
        "emptcp-actor-add-subflow",
        "emptcp-actor-blk-subflow",
        "emptcp-actor-drop",
        "emptcp-actor-get-connect",
        "emptcp-actor-get-subflow",
        "emptcp-actor-rate-limit",
        "emptcp-actor-record",
        "emptcp-actor-remove-option",
        "emptcp-actor-set-backup",
        "emptcp-actor-steer",
        "emptcp-bench",
        "emptcp-multitenant-steer",
        "emptcp-pathmanager-gradual",
        "emptcp-scheduler-ecf",
        "emptcp-scheduler-weighted",
        "emptcp-selector-address",
        "emptcp-selector-connection",
        "emptcp-selector-ip-pair",
        "emptcp-selector-option",
        "emptcp-selector-packet-type",
        "emptcp-selector-sample",
        "emptcp-selector-sequence",
        "emptcp-selector-subflow",
    }
)
"""Distributions of the project itself: enabled from the start, and never ``changed``."""


def canonical(distribution: str) -> str:
    """Return a distribution's name as package indices compare it (PEP 503)."""
    return "-".join(filter(None, distribution.lower().replace("_", "-").replace(".", "-").split("-")))
