# SPDX-License-Identifier: Apache-2.0
"""The controller ecf of emptcp."""
