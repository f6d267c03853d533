# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per command group, imported only when its command is called."""
