# SPDX-License-Identifier: Apache-2.0
"""The selector packet_type of emptcp."""
