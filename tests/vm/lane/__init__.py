# SPDX-License-Identifier: Apache-2.0
"""Boot kernels of Debian's in QEMU, and run the workspace's tests inside.

:mod:`~lane.releases` which kernels, :mod:`~lane.architectures` for which processors, :mod:`~lane.debian`
where they come from, :mod:`~lane.selection` which tests, :mod:`~lane.contents` what the guest's file system
holds (this machine's Python and programs, :mod:`~lane.native`, or those of another processor,
:mod:`~lane.foreign`), :mod:`~lane.cpio` how it is packed, :mod:`~lane.machine` QEMU.
"""
