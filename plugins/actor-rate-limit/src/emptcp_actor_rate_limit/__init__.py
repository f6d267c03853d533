# SPDX-License-Identifier: Apache-2.0
"""The actor rate_limit of emptcp."""
