# SPDX-License-Identifier: Apache-2.0
"""The selector option of emptcp."""
