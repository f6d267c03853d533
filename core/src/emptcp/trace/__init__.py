# SPDX-License-Identifier: Apache-2.0
"""Run a policy over the packets of a capture, and tell for each what matched and what changed."""
