# SPDX-License-Identifier: Apache-2.0
"""Change how Multipath TCP behaves on stock Linux, by policies of selectors and actors run as eBPF."""
