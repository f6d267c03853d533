# SPDX-License-Identifier: BSD-2-Clause
"""The actor mark_ce of emptcp."""
