# SPDX-License-Identifier: Apache-2.0
"""The actor get_connect of emptcp: connections that begin."""
