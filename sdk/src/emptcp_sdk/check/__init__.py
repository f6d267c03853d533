# SPDX-License-Identifier: Apache-2.0
"""``emptcp-sdk check``: what is wrong with a plugin, told without importing it.

``subject`` finds the plugins of a folder or a wheel; the other modules each yield findings about one side of
them. ``kernel`` alone needs root: it loads every stage wherever it works.
"""
