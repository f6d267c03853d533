# SPDX-License-Identifier: Apache-2.0
"""The part of libbpf's interface that is used, as C declarations for cffi.

Enums are ``int`` (the same to the ABI). Option structs begin with their size: libbpf reads what it knows
and refuses unknown fields only when they are not zero, so one declaration serves libbpf 1.0 and everything
after it.

Parsing C takes a tenth of a second, so what a process reads is ``declared.py`` beside it, which cffi
generates from these texts: ``python -m emptcp.pybpf.declarations`` writes it anew.
"""

from __future__ import annotations

from pathlib import Path

STRUCTS = """
struct bpf_object; struct bpf_program; struct bpf_map; struct btf; struct ring_buffer;

struct bpf_map_create_opts {
    size_t sz;
    uint32_t btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id, inner_map_fd, map_flags;
    uint64_t map_extra;
    uint32_t numa_node, map_ifindex;
};
struct bpf_prog_load_opts {
    size_t sz;
    int attempts, expected_attach_type;
    uint32_t prog_btf_fd, prog_flags, prog_ifindex, kern_version, attach_btf_id, attach_prog_fd,
             attach_btf_obj_fd;
    const int *fd_array;
    const void *func_info;
    uint32_t func_info_cnt, func_info_rec_size;
    const void *line_info;
    uint32_t line_info_cnt, line_info_rec_size, log_level, log_size;
    char *log_buf;
};
struct bpf_btf_load_opts { size_t sz; char *log_buf; uint32_t log_level, log_size; };
struct bpf_test_run_opts {
    size_t sz;
    const void *data_in; void *data_out; uint32_t data_size_in, data_size_out;
    const void *ctx_in; void *ctx_out; uint32_t ctx_size_in, ctx_size_out;
    uint32_t retval; int repeat; uint32_t duration, flags, cpu, batch_size;
};
struct bpf_link_create_opts {
    size_t sz; uint32_t flags; void *iter_info; uint32_t iter_info_len, target_btf_id;
};
struct bpf_link_update_opts { size_t sz; uint32_t flags, old_prog_fd; };
struct bpf_map_batch_opts { size_t sz; uint64_t elem_flags, flags; };
struct bpf_prog_query_opts {
    size_t sz; uint32_t query_flags, attach_flags; uint32_t *prog_ids; uint32_t prog_cnt;
    uint32_t *prog_attach_flags;
};
struct bpf_xdp_attach_opts { size_t sz; int old_prog_fd; };
struct bpf_xdp_query_opts {
    size_t sz; uint32_t prog_id, drv_prog_id, hw_prog_id, skb_prog_id; uint8_t attach_mode;
};
struct bpf_object_open_opts {
    size_t sz; const char *object_name; _Bool relaxed_maps; const char *pin_root_path; void *reserved;
    const char *kconfig; const char *btf_custom_path; char *kernel_log_buf; size_t kernel_log_size;
    uint32_t kernel_log_level;
};
struct libbpf_prog_handler_opts {
    size_t sz; long cookie;
    int (*prog_setup_fn)(struct bpf_program *, long);
    int (*prog_prepare_load_fn)(struct bpf_program *, struct bpf_prog_load_opts *, long);
    int (*prog_attach_fn)(const struct bpf_program *, long, void **);
};
struct bpf_func_info { uint32_t insn_off, type_id; };
struct bpf_line_info { uint32_t insn_off, file_name_off, line_off, line_col; };
struct bpf_map_info {
    uint32_t type, id, key_size, value_size, max_entries, map_flags;
    char name[16];
    uint32_t ifindex, btf_vmlinux_value_type_id;
    uint64_t netns_dev, netns_ino;
    uint32_t btf_id, btf_key_type_id, btf_value_type_id, btf_vmlinux_id;
    uint64_t map_extra;
};
struct bpf_prog_info {
    uint32_t type, id;
    uint8_t tag[8];
    uint32_t jited_prog_len, xlated_prog_len;
    uint64_t jited_prog_insns, xlated_prog_insns, load_time;
    uint32_t created_by_uid, nr_map_ids;
    uint64_t map_ids;
    char name[16];
    uint32_t ifindex, gpl_compatible;
    uint64_t netns_dev, netns_ino;
    uint32_t nr_jited_ksyms, nr_jited_func_lens;
    uint64_t jited_ksyms, jited_func_lens;
    uint32_t btf_id, func_info_rec_size;
    uint64_t func_info;
    uint32_t nr_func_info, nr_line_info;
    uint64_t line_info, jited_line_info;
    uint32_t nr_jited_line_info, line_info_rec_size, jited_line_info_rec_size, nr_prog_tags;
    uint64_t prog_tags, run_time_ns, run_cnt, recursion_misses;
    uint32_t verified_insns, attach_btf_obj_id, attach_btf_id;
};
struct bpf_btf_info {
    uint64_t btf; uint32_t btf_size, id; uint64_t name; uint32_t name_len, kernel_btf;
};
struct bpf_link_info { uint32_t type, id, prog_id, pad; uint8_t rest[64]; };
struct file_system { long f_type; char rest[248]; };
"""

FUNCTIONS = """
uint32_t libbpf_major_version(void);
uint32_t libbpf_minor_version(void);
void *libbpf_set_print(int (*fn)(int, const char *, void *));
int libbpf_num_possible_cpus(void);
int libbpf_probe_bpf_helper(int, int, const void *);
int libbpf_find_vmlinux_btf_id(const char *, int);
int libbpf_register_prog_handler(const char *, int, int, const struct libbpf_prog_handler_opts *);

struct bpf_object *bpf_object__open_mem(const void *, size_t, const struct bpf_object_open_opts *);
int bpf_object__load(struct bpf_object *);
void bpf_object__close(struct bpf_object *);
struct btf *bpf_object__btf(const struct bpf_object *);
struct bpf_program *bpf_object__next_program(const struct bpf_object *, struct bpf_program *);
struct bpf_map *bpf_object__next_map(const struct bpf_object *, const struct bpf_map *);
const void *btf__raw_data(const struct btf *, uint32_t *);

const char *bpf_program__name(const struct bpf_program *);
const char *bpf_program__section_name(const struct bpf_program *);
int bpf_program__type(const struct bpf_program *);
int bpf_program__fd(const struct bpf_program *);
const void *bpf_program__insns(const struct bpf_program *);
size_t bpf_program__insn_cnt(const struct bpf_program *);
int bpf_program__set_insns(struct bpf_program *, void *, size_t);
int bpf_program__set_autoload(struct bpf_program *, _Bool);
int bpf_program__set_log_buf(struct bpf_program *, char *, size_t);

const char *bpf_map__name(const struct bpf_map *);
int bpf_map__fd(const struct bpf_map *);
int bpf_map__type(const struct bpf_map *);
uint32_t bpf_map__key_size(const struct bpf_map *);
uint32_t bpf_map__value_size(const struct bpf_map *);
uint32_t bpf_map__max_entries(const struct bpf_map *);
uint32_t bpf_map__map_flags(const struct bpf_map *);
int bpf_map__set_max_entries(struct bpf_map *, uint32_t);
int bpf_map__set_map_flags(struct bpf_map *, uint32_t);
uint32_t bpf_map__btf_key_type_id(const struct bpf_map *);
uint32_t bpf_map__btf_value_type_id(const struct bpf_map *);
_Bool bpf_map__is_internal(const struct bpf_map *);
int bpf_map__reuse_fd(struct bpf_map *, int);
int bpf_map__set_initial_value(struct bpf_map *, const void *, size_t);

int bpf_map_create(int, const char *, uint32_t, uint32_t, uint32_t, const struct bpf_map_create_opts *);
int bpf_map_lookup_elem(int, const void *, void *);
int bpf_map_update_elem(int, const void *, const void *, uint64_t);
int bpf_map_delete_elem(int, const void *);
int bpf_map_get_next_key(int, const void *, void *);
int bpf_map_freeze(int);
int bpf_map_lookup_batch(int, void *, void *, void *, void *, uint32_t *, const struct bpf_map_batch_opts *);
int bpf_map_update_batch(int, const void *, const void *, uint32_t *, const struct bpf_map_batch_opts *);
int bpf_map_delete_batch(int, const void *, uint32_t *, const struct bpf_map_batch_opts *);

int bpf_prog_load(int, const char *, const char *, const void *, size_t, struct bpf_prog_load_opts *);
int bpf_btf_load(const void *, size_t, struct bpf_btf_load_opts *);
int bpf_prog_test_run_opts(int, struct bpf_test_run_opts *);
int bpf_enable_stats(int);
int bpf_obj_pin(int, const char *);
int bpf_obj_get(const char *);
int bpf_obj_get_info_by_fd(int, void *, uint32_t *);
int bpf_prog_get_fd_by_id(uint32_t);
int bpf_map_get_fd_by_id(uint32_t);
int bpf_btf_get_fd_by_id(uint32_t);
int bpf_link_get_fd_by_id(uint32_t);
int bpf_prog_get_next_id(uint32_t, uint32_t *);
int bpf_map_get_next_id(uint32_t, uint32_t *);
int bpf_link_get_next_id(uint32_t, uint32_t *);

int bpf_link_create(int, int, int, const struct bpf_link_create_opts *);
int bpf_link_update(int, int, const struct bpf_link_update_opts *);
int bpf_link_detach(int);
int bpf_iter_create(int);
int bpf_raw_tracepoint_open(const char *, int);
int bpf_prog_query_opts(int, int, struct bpf_prog_query_opts *);
int bpf_xdp_attach(int, int, uint32_t, const struct bpf_xdp_attach_opts *);
int bpf_xdp_query(int, int, struct bpf_xdp_query_opts *);

struct ring_buffer *ring_buffer__new(int, int (*)(void *, void *, size_t), void *, const void *);
int ring_buffer__poll(struct ring_buffer *, int);
int ring_buffer__consume(struct ring_buffer *);
int ring_buffer__epoll_fd(const struct ring_buffer *);
void ring_buffer__free(struct ring_buffer *);
"""

# From libc: libbpf hands its messages over as a format and a va_list, which is a pointer on the wire of
# every ABI with 64-bit Linux BPF JITs (an array on x86-64, a structure passed by reference on arm64).
LIBC = """
int vsnprintf(char *, size_t, const char *, void *);
int statfs(const char *, struct file_system *);
"""

_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# Generated by cffi: see declarations.py.
# fmt: off
# ruff: noqa
# mypy: ignore-errors
"""


def generate(path: Path) -> None:
    """Write the Python module that holds the declarations as cffi loads them, without parsing C."""
    import cffi

    builder = cffi.FFI()
    builder.cdef(STRUCTS + FUNCTIONS + LIBC)
    builder.set_source("emptcp.pybpf.declared", None)
    builder.emit_python_code(str(path))
    path.write_text(_HEAD + path.read_text(encoding="ascii").partition("\n")[2], encoding="ascii")


if __name__ == "__main__":
    generate(Path(__file__).with_name("declared.py"))
