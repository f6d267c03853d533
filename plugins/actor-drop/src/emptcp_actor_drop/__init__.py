# SPDX-License-Identifier: Apache-2.0
"""The actor drop of emptcp."""
