# SPDX-License-Identifier: Apache-2.0
"""The actor set_backup of emptcp."""
