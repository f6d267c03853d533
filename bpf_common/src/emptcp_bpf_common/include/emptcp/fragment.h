/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What selector.h and actor.h are made of: one body becomes two fragments, one per back-end, and a record in
 * section "emptcp.abi" that core reads without loading the object.
 *
 * The body is inlined into both with a handle whose `backend` is a constant, so that the code for the other
 * back-end is never compiled in. All five arguments always stand in the prototype: BTF tells from it which
 * parameter and state structs the fragment takes.
 */
#ifndef EMPTCP_FRAGMENT_H
#define EMPTCP_FRAGMENT_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

/* Behind a name, so that a fixed number of its bytes can be copied. */
#define EMPTCP_ZEROS "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

#define EMPTCP_FRAGMENT_FUNCTION(stage, place, suffix, section, CTX, PARAM_T, STATE_T, answer)         \
	SEC(section)                                                                                   \
	int stage##suffix(CTX *ctx, struct emptcp_pkt *parsed, const PARAM_T *param_, STATE_T *state_, \
			  struct emptcp_flow *flow)                                                    \
	{                                                                                              \
		const struct emptcp_handle handle = {                                                  \
			.ctx = ctx,                                                                    \
			.parsed = parsed,                                                              \
			.flow = flow,                                                                  \
			.backend = place,                                                              \
			.name = #stage EMPTCP_ZEROS,                                                   \
		};                                                                                     \
		answer(stage##__body(&handle, param_, state_));                                        \
	}

#define EMPTCP_FRAGMENT(which, what, RESULT, answer, stage, pkt, PARAM_T, param, STATE_T, state)           \
	static __always_inline RESULT stage##__body(const struct emptcp_handle *pkt, const PARAM_T *param, \
						    STATE_T *state);                                       \
	EMPTCP_FRAGMENT_FUNCTION(stage, EMPTCP_XDP, __xdp, "emptcp.xdp/" #stage, struct xdp_md, PARAM_T,   \
				 STATE_T, answer)                                                          \
	EMPTCP_FRAGMENT_FUNCTION(stage, EMPTCP_TC, __tc, "emptcp.tc/" #stage, struct __sk_buff, PARAM_T,   \
				 STATE_T, answer)                                                          \
	const struct emptcp_abi stage##__abi SEC("emptcp.abi") = {                                         \
		.record_size = sizeof(struct emptcp_abi),                                                  \
		.chain_abi = EMPTCP_CHAIN_ABI,                                                             \
		.header_version = EMPTCP_HEADER_VERSION,                                                   \
		.kind = which,                                                                             \
		.flags = what,                                                                             \
		.name = #stage,                                                                            \
	};                                                                                                 \
	static __always_inline RESULT stage##__body(const struct emptcp_handle *pkt __unused,              \
						    const PARAM_T *param __unused, STATE_T *state __unused)

/* emptcp_abi.flags: bit 0 for parameters, bit 1 for state. */
#define EMPTCP_TAKES(TYPE, flag) (__builtin_types_compatible_p(TYPE, void) ? 0 : (flag))

#define EMPTCP_ANSWER(call) return call
#define EMPTCP_NO_ANSWER(call) \
	call;                  \
	return 0

#endif
