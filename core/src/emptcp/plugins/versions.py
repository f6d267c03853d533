# SPDX-License-Identifier: Apache-2.0
"""The two contracts that a plugin is written against. :mod:`emptcp.api` offers them to plugins."""

from __future__ import annotations

CHAIN_ABI = 1
"""What core hands to a fragment, and what it may answer: ``emptcp/abi.h``, ``EMPTCP_CHAIN_ABI``."""

HEADERS = 3
"""The newest headers whose fragments this core can run, ``EMPTCP_HEADER_VERSION``. Since 2 stages only note
what their changes make of TCP's checksum; core writes it behind the last one."""

HEADERS_WITH_TCP = 3
"""Since this version stages read and change the TCP header in the parsed packet. Core writes it into the
packet before a fragment that is older, and reads it again behind."""

HOOK_API = 1
"""The hooks of :mod:`emptcp.hookspecs`. It grows when one is added; arguments added to one break nobody."""

MANIFEST_SCHEMA = 1
"""The format of ``emptcp.toml``."""
