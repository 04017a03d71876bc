/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What generator and sink have in common: frames of Ethernet, IPv4 without options, UDP, and a time stamp as the
 * first bytes of the payload. src/end_to_end/frame.rs builds the first of them.
 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Two-byte alignment is what all members have at any rate; with less the compiler would copy byte by byte. */
struct frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
	__u64 sent_ns; /* bpf_ktime_get_ns of the sender; 0: not stamped */
} __attribute__((packed, aligned(2)));

#endif
