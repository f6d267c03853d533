# SPDX-License-Identifier: Apache-2.0
"""The actor add_option of emptcp."""
