# SPDX-License-Identifier: Apache-2.0
"""Why a lane can't run, in one sentence."""

from __future__ import annotations


class Refusal(Exception):
    """Something the lane needs is missing; the message is for the person who started it."""
