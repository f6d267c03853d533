# SPDX-License-Identifier: Apache-2.0
"""Plugins: found without being run, enabled by the operator, bound to policies, called through hooks.

:mod:`~emptcp.plugins.discovery` reads metadata and manifests, :mod:`~emptcp.plugins.state` knows which
plugins the operator enabled, :mod:`~emptcp.plugins.catalog` binds what a policy says to what they provide.
:mod:`~emptcp.plugins.manager` is the only one that imports a plugin's code.
"""
