# SPDX-License-Identifier: Apache-2.0
"""The controller weighted of emptcp."""
