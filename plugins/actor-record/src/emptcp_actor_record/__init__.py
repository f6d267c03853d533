# SPDX-License-Identifier: Apache-2.0
"""The actor record of emptcp."""
