# SPDX-License-Identifier: Apache-2.0
"""The selector and key connection of emptcp."""
