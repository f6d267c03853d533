# SPDX-License-Identifier: Apache-2.0
"""From a policy to running programs: plan, the engines, apply.

``plan`` is pure: bound policies in, stages with next-if-match and next-if-not out. ``fused`` joins a
plan's fragments into one program. ``apply`` alone changes the kernel, and ``pins`` alone knows where
in the BPF file system things stand.
"""
