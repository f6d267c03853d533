# SPDX-License-Identifier: Apache-2.0
"""The controller spread of emptcp."""
