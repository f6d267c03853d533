# SPDX-License-Identifier: Apache-2.0
"""The plugin here is a project of its own, whose tests run where it is installed (tests/packaging)."""

collect_ignore = ["plugin"]
