# SPDX-License-Identifier: Apache-2.0
"""BTF in the kernel: load it, open it by id, read it back."""

from __future__ import annotations

from typing import Self

from emptcp.pybpf import descriptor
from emptcp.pybpf.btf import Btf
from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import library


class LoadedBtf(descriptor.Descriptor):
    """BTF in the kernel, for programs and maps to refer to."""

    what = "BTF"

    @property
    def id(self) -> int:
        """The kernel's number of the BTF."""
        return int(descriptor.information(self.fd, "bpf_btf_info", self.what).id)

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open the BTF with this id.

        :raises BpfError: there is none.
        """
        return cls(descriptor.by_id("bpf_btf_get_fd_by_id", number, cls.what))

    def types(self) -> Btf:
        """Return what the BTF says, read back from the kernel.

        :raises BpfError: the kernel does not give it.
        """
        opened = library()
        size = descriptor.information(self.fd, "bpf_btf_info", self.what).btf_size
        data = opened.ffi.new("char[]", size)
        info = opened.ffi.new("struct bpf_btf_info *")
        info.btf, info.btf_size = int(opened.ffi.cast("uintptr_t", data)), size
        descriptor.fill_information(self.fd, info, self.what)
        return Btf.read(bytes(opened.ffi.buffer(data)))


def load_btf(data: bytes) -> LoadedBtf:
    """Load BTF into the kernel.

    :raises BpfError: the kernel refuses it; the last line of its log says why.
    """
    opened = library()
    fd = opened.function("bpf_btf_load")(bytes(data), len(data), opened.ffi.NULL)
    if fd >= 0:
        return LoadedBtf(fd)
    log = opened.ffi.new("char[]", 1 << 20)
    opts = opened.options("bpf_btf_load_opts", log_buf=log, log_level=1, log_size=1 << 20)
    again = opened.function("bpf_btf_load")(bytes(data), len(data), opts)
    if again >= 0:
        return LoadedBtf(again)
    text = opened.text(log)
    error = failed("the kernel refuses the BTF", fd, log=text)
    last = text.strip().rsplit("\n", 1)[-1]
    raise BpfError(
        f"{error.sentence}: {last}" if last else error.sentence, fix=error.fix, errno=-fd, log=text
    )
