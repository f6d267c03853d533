# SPDX-License-Identifier: Apache-2.0
"""Running MPTCP connections of this host: their subflows, their events, and packets put into them."""

from __future__ import annotations

from emptcp.mptcp.acknowledge import duplicate_ack

__all__ = ["duplicate_ack"]
