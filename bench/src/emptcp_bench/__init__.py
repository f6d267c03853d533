# SPDX-License-Identifier: Apache-2.0
"""Measurements of emptcp on the machine at hand: the command ``emptcp bench``."""
