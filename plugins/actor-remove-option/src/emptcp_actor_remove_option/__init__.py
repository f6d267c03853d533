# SPDX-License-Identifier: Apache-2.0
"""The actor remove_option of emptcp."""
