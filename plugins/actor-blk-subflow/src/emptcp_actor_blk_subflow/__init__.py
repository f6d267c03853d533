# SPDX-License-Identifier: Apache-2.0
"""The actor blk_subflow of emptcp."""
