# SPDX-License-Identifier: Apache-2.0
"""The selector sequence of emptcp."""
