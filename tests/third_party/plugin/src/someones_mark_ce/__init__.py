# SPDX-License-Identifier: Apache-2.0
"""The actor mark_ce of emptcp."""
