# SPDX-License-Identifier: Apache-2.0
"""The actor add_subflow of emptcp."""
