# SPDX-License-Identifier: Apache-2.0
"""The selector ip_pair of emptcp."""
