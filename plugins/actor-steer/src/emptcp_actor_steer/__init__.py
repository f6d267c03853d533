# SPDX-License-Identifier: Apache-2.0
"""The actor steer of emptcp."""
