// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What tunl0, ip6tnl0 and sit0 do on a node, for kernels without these devices: takes one outer IPv4 or
 * IPv6 header off a packet that carries IPv4 (protocol 4) or IPv6 (protocol 41) and hands the inner packet
 * to the stack. It trusts nothing: a tunnel packet whose lengths disagree is counted and dropped, so that a
 * sender that carries Ethernet padding into the tunnel, or truncates, is noticed. Runs only on the backends
 * of tests and of the demo.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Index of `decapsulated`: 4in4, 6in4, 4in6, 6in6 (inner "in" outer), then packets with wrong lengths. */
enum { OUTER_IPV6 = 2, INNER_IPV6 = 1, MALFORMED = 4, COUNTERS = 5 };

struct marks {
	__u8 outer_tos;
	__u8 outer_ttl;
	__u8 inner_tos;
	__u8 inner_ttl;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} decapsulated SEC(".maps");

/* Packets by outer source; IPv4 in its mapped form ::ffff:a.b.c.d. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct in6_addr);
	__type(value, __u64);
} outer_sources SEC(".maps");

/* Packets by what a tunnel has to copy and to choose. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct marks);
	__type(value, __u64);
} outer_marks SEC(".maps");

/* Not 0: the node has no tunnel device, and its stack gets tunnel packets as they are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} closed SEC(".maps");

struct header {
	struct in6_addr source;
	__u32 length; /* of the whole packet, header included */
	__u8 header_length;
	__u8 protocol; /* next header */
	__u8 tos;
	__u8 ttl;
};

static __always_inline int parse_ipv4(void *at, void *end, struct header *header)
{
	struct iphdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5)
		return -1;
	header->source.s6_addr32[0] = 0;
	header->source.s6_addr32[1] = 0;
	header->source.s6_addr32[2] = bpf_htonl(0xffff);
	header->source.s6_addr32[3] = ip->saddr;
	header->length = bpf_ntohs(ip->tot_len);
	header->header_length = sizeof(*ip);
	header->protocol = ip->protocol;
	header->tos = ip->tos;
	header->ttl = ip->ttl;
	return 0;
}

static __always_inline int parse_ipv6(void *at, void *end, struct header *header)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return -1;
	header->source = ip->saddr;
	header->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	header->header_length = sizeof(*ip);
	header->protocol = ip->nexthdr;
	header->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	header->ttl = ip->hop_limit;
	return 0;
}

static __always_inline void count(void *map, const void *key)
{
	__u64 one = 1;
	__u64 *packets = bpf_map_lookup_elem(map, key);

	if (packets)
		__sync_fetch_and_add(packets, 1);
	else
		bpf_map_update_elem(map, key, &one, BPF_ANY);
}

/* "frags", so that drivers take it whatever the MTU. Headers are always in the first buffer. */
SEC("xdp.frags")
int decapsulate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data, saved;
	struct header outer = {}, inner = {};
	struct marks marks = {};
	__u32 kind = 0, first = 0, *is_closed;
	int parsed;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		parsed = parse_ipv4(ethernet + 1, end, &outer);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		parsed = parse_ipv6(ethernet + 1, end, &outer);
		kind = OUTER_IPV6;
	} else {
		return XDP_PASS;
	}
	if (parsed || (outer.protocol != IPPROTO_IPIP && outer.protocol != IPPROTO_IPV6))
		return XDP_PASS;
	is_closed = bpf_map_lookup_elem(&closed, &first);
	if (is_closed && *is_closed)
		return XDP_PASS;

	saved = *ethernet;
	/* One constant offset per family keeps the verifier's arithmetic simple. */
	data = kind == OUTER_IPV6 ? (void *)(ethernet + 1) + sizeof(struct ipv6hdr)
				  : (void *)(ethernet + 1) + sizeof(struct iphdr);
	if (outer.protocol == IPPROTO_IPIP) {
		parsed = parse_ipv4(data, end, &inner);
		saved.h_proto = bpf_htons(ETH_P_IP);
	} else {
		parsed = parse_ipv6(data, end, &inner);
		saved.h_proto = bpf_htons(ETH_P_IPV6);
		kind |= INNER_IPV6;
	}
	if (parsed || outer.length != outer.header_length + inner.length)
		goto malformed;

	if (bpf_xdp_adjust_head(ctx, outer.header_length))
		goto malformed;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		goto malformed;
	*ethernet = saved;

	marks.outer_tos = outer.tos;
	marks.outer_ttl = outer.ttl;
	marks.inner_tos = inner.tos;
	marks.inner_ttl = inner.ttl;
	count(&decapsulated, &kind);
	count(&outer_sources, &outer.source);
	count(&outer_marks, &marks);
	return XDP_PASS;

malformed:
	kind = MALFORMED;
	count(&decapsulated, &kind);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
