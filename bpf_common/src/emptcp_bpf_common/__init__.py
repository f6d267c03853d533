# SPDX-License-Identifier: Apache-2.0
"""Where the BPF C headers of emptcp lie; ``#include <emptcp/actor.h>`` is looked up from there."""

from __future__ import annotations

from pathlib import Path


def include_folder() -> Path:
    """Return the folder to give to the compiler with ``-I``."""
    return Path(__file__).parent / "include"
