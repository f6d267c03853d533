# SPDX-License-Identifier: Apache-2.0
"""Where programs run: network namespaces, devices, and what is attached to them."""
