# SPDX-License-Identifier: Apache-2.0
"""The resident process, ``emptcp run``: what has to go on after a command has exited."""
