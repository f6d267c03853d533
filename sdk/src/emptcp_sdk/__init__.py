# SPDX-License-Identifier: Apache-2.0
"""What the author of an emptcp plugin needs besides the headers: the build hook that compiles BPF C."""
