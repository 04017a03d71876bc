// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Delivery of probes: what the box itself sends with a probe's mark goes to the backend that the mark names, as a
 * worker would have sent it: by the same NIC, with the same Ethernet header, tag and tunnel header. The headers are
 * made in user space (src/probe/way.rs); here they are put in front, and only what depends on the packet is filled in.
 *
 * It runs where packets leave by the probe device, so before the kernel finishes checksums: an unfinished one stays
 * with its place in the packet, and the kernel finishes it on the NIC as for tunnels of its own. Nothing ever leaves
 * by the probe device itself.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* As in api/src/snapshot.rs. */
#define PROBE_MARK 0x53480000
#define PROBE_MARK_MASK 0xffff0000

/* Written by src/probe/way.rs. */
struct way {
	__u32 ifindex;
	__u32 room; /* bytes of the largest IP packet that fits */
	__be16 tag_type; /* 0: none */
	__u16 tag;
	__u16 outer_length; /* bytes of the tunnel's header: 0, 20 or 40 */
	__u8 headers[sizeof(struct ethhdr) + sizeof(struct ipv6hdr)];
};

/* Number of the probe's way times two, plus one for IPv6 packets → way. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * 65536);
	__type(key, __u32);
	__type(value, struct way);
} ways SEC(".maps");

/* In the order of ProbeCounters in api/src/status.rs. */
enum counter {
	DELIVERED,
	DROPPED_NO_PROBE,
	DROPPED_NO_WAY,
	DROPPED_TOO_BIG,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline int counted(__u32 counter, int action)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &counter);

	if (count)
		++*count;
	return action;
}

static __always_inline bool write_outer_v4(struct __sk_buff *skb, const struct way *way, __u32 length, __u8 class)
{
	const __u64 encapsulate = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	struct iphdr outer;
	__u32 sum;

	if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, encapsulate))
		return false;
	__builtin_memcpy(&outer, way->headers + sizeof(struct ethhdr), sizeof(outer));
	outer.tos = class;
	outer.tot_len = bpf_htons(length + sizeof(outer));
	outer.check = 0;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&outer, sizeof(outer), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	outer.check = ~sum;
	return !bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &outer, sizeof(outer), 0);
}

static __always_inline bool write_outer_v6(struct __sk_buff *skb, const struct way *way, __u32 length, __u8 class)
{
	const __u64 encapsulate = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	struct ipv6hdr outer;

	if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC, encapsulate))
		return false;
	__builtin_memcpy(&outer, way->headers + sizeof(struct ethhdr), sizeof(outer));
	outer.priority = class >> 4;
	outer.flow_lbl[0] = (outer.flow_lbl[0] & 0x0f) | class << 4;
	outer.payload_len = bpf_htons(length);
	return !bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &outer, sizeof(outer), 0);
}

static __always_inline bool write_headers(struct __sk_buff *skb, const struct way *way, __u32 length, __u8 class)
{
	if (way->outer_length == sizeof(struct iphdr) && !write_outer_v4(skb, way, length, class))
		return false;
	if (way->outer_length == sizeof(struct ipv6hdr) && !write_outer_v6(skb, way, length, class))
		return false;
	if (bpf_skb_store_bytes(skb, 0, way->headers, sizeof(struct ethhdr), 0))
		return false;
	return !way->tag_type || !bpf_skb_vlan_push(skb, way->tag_type, way->tag);
}

SEC("tc")
int deliver(struct __sk_buff *skb)
{
	bool ipv6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	__u32 length = skb->len - sizeof(struct ethhdr);
	__u8 first[2];
	struct way *way;
	__u32 key, ifindex;

	if ((skb->mark & PROBE_MARK_MASK) != PROBE_MARK || (!ipv6 && skb->protocol != bpf_htons(ETH_P_IP)))
		return counted(DROPPED_NO_PROBE, TC_ACT_SHOT);
	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), first, sizeof(first)))
		return counted(DROPPED_NO_PROBE, TC_ACT_SHOT);
	key = (skb->mark & ~PROBE_MARK_MASK) << 1 | ipv6;
	way = bpf_map_lookup_elem(&ways, &key);
	if (!way)
		return counted(DROPPED_NO_WAY, TC_ACT_SHOT);
	if (length > way->room)
		return counted(DROPPED_TOO_BIG, TC_ACT_SHOT);

	ifindex = way->ifindex;
	if (!write_headers(skb, way, length, ipv6 ? first[0] << 4 | first[1] >> 4 : first[1]))
		return counted(DROPPED_NO_WAY, TC_ACT_SHOT);
	/* Packets of clients have no mark either, should anybody look at it on the NIC. */
	skb->mark = 0;
	return counted(DELIVERED, bpf_redirect(ifindex, 0));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
