# SPDX-License-Identifier: Apache-2.0
"""The actor get_subflow of emptcp: subflows that join."""
