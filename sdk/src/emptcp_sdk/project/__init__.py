# SPDX-License-Identifier: Apache-2.0
"""Make a plugin's package from the template, and bring later changes of the template to it."""
