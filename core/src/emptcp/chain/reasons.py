# SPDX-License-Identifier: Apache-2.0
"""Why a packet was left untouched: the names of ``enum emptcp_reason`` (emptcp/abi.h), in its order."""

from __future__ import annotations

REASONS: tuple[str, ...] = (
    "ok",
    "fragment",
    "truncated",
    "bad_header",
    "too_many_headers",
    "routing_header",
    "length_unknown",
    "signed",
    "syn_data",
    "closing",
    "no_option",
    "no_space",
    "not_pure_ack",
    "gso",
    "no_flow",
    "no_value",
    "bad_option",
    "bad_version",
    "refused",
    "unsafe",
    "unknown_state",
    "no_link",
    "too_long",
)
"""Index: the number a program stores; value: the name `list` and `trace` print."""

SLOTS = 24
"""``EMPTCP_REASONS``: counters kept per stage, more than there are names so that names can be added."""


def name(number: int) -> str:
    """Return the name of a reason; one this core does not know yet is ``reason_N``."""
    return REASONS[number] if number < len(REASONS) else f"reason_{number}"
