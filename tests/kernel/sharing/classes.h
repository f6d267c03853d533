/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What classifier and consumer agree on; each distribution has its own copy. */
#ifndef CLASSES_H
#define CLASSES_H

#include <emptcp/uapi.h>

struct traffic_class {
	__u32 number;
	__u32 packets;
};

/* In the scratch. `known` is 0 when no classifier saw the packet. */
struct class_of_packet {
	__u32 known;
	__u32 number;
};

#endif
