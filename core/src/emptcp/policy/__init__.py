# SPDX-License-Identifier: Apache-2.0
"""Policies as data: the model, the file format, the small grammar of ``when`` and ``do``, the Python API.

Text comes in (:mod:`emptcp.policy.file`, :mod:`emptcp.policy.when`) or Python objects do
(:mod:`emptcp.policy.build`); both give the same :mod:`emptcp.policy.model`. Nothing here knows which
selectors and actors exist: names and parameters are checked by :mod:`emptcp.plugins.catalog`.
"""
