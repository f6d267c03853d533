# SPDX-License-Identifier: Apache-2.0
"""Measurements of emptcp. Nothing is measured yet: the distribution holds the place for them."""
