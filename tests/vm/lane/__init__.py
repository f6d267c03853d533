# SPDX-License-Identifier: Apache-2.0
"""Boot kernels of Debian's in QEMU, and run the workspace's tests inside.

:mod:`~lane.releases` which kernels, :mod:`~lane.debian` where they come from, :mod:`~lane.contents` what
the guest's file system holds, :mod:`~lane.cpio` how it is packed, :mod:`~lane.machine` QEMU.
"""
