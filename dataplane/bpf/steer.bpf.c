// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Steering: takes the packets to our addresses, and the ICMP errors about our tunnels, away from the kernel and
 * hands each to the AF_XDP socket of the queue it came in by. Everything else stays with the kernel, as do frames
 * for another station.
 *
 * Of a packet to an owned address it looks at the address only: ports, fragments and ICMP are judged in user
 * space. It never lets one through to the kernel, neighbour discovery excepted: the host would answer with a
 * reset. Errors about our tunnels come to the tunnels' source, which need not be owned, and may be the host's
 * own address.
 *
 * One instance runs per NIC. src/program.rs loads it and fills its maps.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The most that is read: Ethernet, two VLAN tags, IPv6 and the ICMPv6 type. */
#define HEADERS_MAX (14 + 2 * 4 + 40 + 1)

/* The five ICMPv6 types of neighbour discovery, RFC 4861. */
#define ND_FIRST 133
#define ND_LAST 137

/* Destination unreachable and time exceeded, RFC 792. */
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11

/* Destination unreachable, packet too big and time exceeded, RFC 4443. */
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TIME_EXCEEDED 3

/* More-fragments flag and offset: zero only in a whole packet. */
#define IP_FRAGMENT 0x3fff

/* Address (IPv4 as ::ffff:a.b.c.d) → bytes to make free in front of the frame: 0, 20 or 40.
 * The loader creates and pins it, one for all NICs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct in6_addr);
	__type(value, __u32);
} owned SEC(".maps");

struct prefix {
	__u32 bits;
	struct in6_addr address;
};

/* Prefixes (IPv4 as ::ffff:a.b.c.d/96+n) that our tunnels come from → 1.
 * The loader creates and pins it, one for all NICs. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct prefix);
	__type(value, __u32);
} tunnel_sources SEC(".maps");

#define STATIONS 8

/* The Ethernet addresses that frames to this box carry here: of the NIC and of the VLAN devices on it, each in the
 * first 6 of 8 bytes. The first is the NIC's; if it is 0, frames are taken whatever they carry. One per NIC. */
struct stations {
	__u64 macs[STATIONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stations);
} stations SEC(".maps");

/* Receive queue → socket. One per NIC. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* In the order of XdpCounters in api/src/status.rs. */
enum counter {
	REDIRECTED,
	PASSED,
	DROPPED_NO_SOCKET,
	DROPPED_NO_HEADROOM,
	DROPPED_BAD_SOURCE_MAC,
	COUNTERS,
};

/* One per NIC. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 type; /* of what follows */
};

struct packet {
	struct in6_addr destination;
	__u64 station; /* Ethernet destination, as in struct stations */
	bool group_source; /* the Ethernet source has the group bit, which IEEE 802.3 forbids */
	bool ipv6;
	__u32 icmp; /* where its ICMP message begins; 0: it has none, or only a fragment of one */
};

/* An ICMP error with the header of the packet that it is about. */
struct error_v4 {
	__u8 type;
	__u8 rest[7];
	struct iphdr quoted;
};

struct error_v6 {
	__u8 type;
	__u8 rest[7];
	struct ipv6hdr quoted;
};

enum reading { ADDRESSED, NOT_FOR_US, TOO_SHORT };

/* Written over the start of a frame with headroom, and read by src/packet/steering.rs. The source address of a
 * frame without headroom never has the group bit, so the frame alone tells the two apart, even while `owned`
 * changes. */
struct mark {
	__u8 undefined[6];
	__u8 magic[2];
	__u8 headroom; /* bytes from here to the Ethernet header, this mark included */
};

static __always_inline int counted(__u32 counter, int action)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &counter);

	if (count)
		++*count;
	return action;
}

/* Reads the headers between `data` and `end`. */
static __always_inline enum reading read_headers(void *data, void *end, struct packet *packet)
{
	struct ethhdr *ethernet = data;
	void *next = ethernet + 1;
	__be16 type;

	if (next > end)
		return TOO_SHORT;
	__builtin_memcpy(&packet->station, ethernet->h_dest, ETH_ALEN);
	packet->group_source = ethernet->h_source[0] & 1;
	type = ethernet->h_proto;

	for (int tags = 0; tags < 2; tags++) {
		struct vlan_tag *tag = next;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		next = tag + 1;
		if (next > end)
			return TOO_SHORT;
		type = tag->type;
	}

	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		if ((void *)(ip + 1) > end)
			return TOO_SHORT;
		packet->destination.s6_addr32[2] = bpf_htonl(0xffff);
		packet->destination.s6_addr32[3] = ip->daddr;
		/* A message in fragments has a checksum that nobody can check before they are put together. */
		if (ip->protocol == IPPROTO_ICMP && !(ip->frag_off & bpf_htons(IP_FRAGMENT)))
			packet->icmp = next - data + ip->ihl * 4;
		return ADDRESSED;
	}

	if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;
		__u8 *icmp_type = (void *)(ip + 1);

		if ((void *)(ip + 1) > end)
			return TOO_SHORT;
		packet->destination = ip->daddr;
		packet->ipv6 = true;
		if (ip->nexthdr != IPPROTO_ICMPV6)
			return ADDRESSED;
		if ((void *)(icmp_type + 1) > end)
			return TOO_SHORT;
		packet->icmp = (void *)icmp_type - data;
		return *icmp_type >= ND_FIRST && *icmp_type <= ND_LAST ? NOT_FOR_US : ADDRESSED;
	}

	return NOT_FOR_US;
}

/* Reads the headers when they are not all in the frame's first buffer, as some drivers leave them when the
 * MTU is large. */
static __always_inline enum reading read_scattered(struct xdp_md *ctx, struct packet *packet)
{
	struct {
		__u8 align[2]; /* the verifier wants aligned stack reads: puts the IP header on 4 bytes */
		__u8 headers[HEADERS_MAX];
	} copy __attribute__((aligned(8))) = {};
	__u64 size = bpf_xdp_get_buff_len(ctx);

	if (size > sizeof(copy.headers))
		size = sizeof(copy.headers);
	if (size < sizeof(struct ethhdr) || bpf_xdp_load_bytes(ctx, 0, copy.headers, size))
		return TOO_SHORT;
	return read_headers(copy.headers, copy.headers + size, packet);
}

static __always_inline bool is_ip_in_ip(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6;
}

static __always_inline bool quotes_tunnel_v4(struct xdp_md *ctx, __u32 icmp)
{
	struct error_v4 error;

	if (bpf_xdp_load_bytes(ctx, icmp, &error, sizeof(error)))
		return false;
	if (error.type != ICMP_UNREACHABLE && error.type != ICMP_TIME_EXCEEDED)
		return false;
	return is_ip_in_ip(error.quoted.protocol);
}

static __always_inline bool quotes_tunnel_v6(struct xdp_md *ctx, __u32 icmp)
{
	struct error_v6 error;

	if (bpf_xdp_load_bytes(ctx, icmp, &error, sizeof(error)))
		return false;
	if (error.type < ICMPV6_UNREACHABLE || error.type > ICMPV6_TIME_EXCEEDED)
		return false;
	return is_ip_in_ip(error.quoted.nexthdr);
}

/* Whether it is an ICMP error about one of our own tunnel packets. The source that it came to is not enough to
 * tell: it may be the host's own address, and the kernel needs the errors about its own connections. */
static __always_inline bool is_tunnel_error(struct xdp_md *ctx, const struct packet *packet)
{
	struct prefix source;

	if (!packet->icmp)
		return false;
	if (!(packet->ipv6 ? quotes_tunnel_v6(ctx, packet->icmp) : quotes_tunnel_v4(ctx, packet->icmp)))
		return false;
	source.bits = 128;
	source.address = packet->destination;
	return bpf_map_lookup_elem(&tunnel_sources, &source);
}

/* Whether a frame is for a station that is not this box: one that a switch floods, or that a NIC hands up because
 * somebody sniffs. The box that it is for forwards it, too. */
static __always_inline bool is_for_another(const struct packet *packet)
{
	__u32 first = 0;
	struct stations *own = bpf_map_lookup_elem(&stations, &first);

	if (!own || !own->macs[0])
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < STATIONS; i++)
		if (own->macs[i] && own->macs[i] == packet->station)
			return false;
	return true;
}

/* Moves the frame's start `headroom` bytes back and marks it. */
static __always_inline bool make_headroom(struct xdp_md *ctx, __u32 headroom)
{
	struct mark *mark;

	if (bpf_xdp_adjust_head(ctx, -(int)headroom))
		return false;
	mark = (void *)(long)ctx->data;
	if ((void *)(mark + 1) > (void *)(long)ctx->data_end)
		return false;
	mark->magic[0] = 0xff;
	mark->magic[1] = 0x53;
	mark->headroom = headroom;
	return true;
}

/* Without "frags", drivers refuse the program when the MTU is above about 3500 bytes. With it, a frame may come
 * in several buffers; a socket bound without XDP_USE_SG drops and counts those that do not fit one of its own. */
SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	struct packet packet = {};
	enum reading reading;
	__u32 *headroom;
	int action;

	reading = read_headers((void *)(long)ctx->data, (void *)(long)ctx->data_end, &packet);
	if (reading == TOO_SHORT)
		reading = read_scattered(ctx, &packet);
	if (reading != ADDRESSED)
		return counted(PASSED, XDP_PASS);

	headroom = bpf_map_lookup_elem(&owned, &packet.destination);
	if (!headroom && !is_tunnel_error(ctx, &packet))
		return counted(PASSED, XDP_PASS);
	/* The kernel drops it, as any host does. */
	if (is_for_another(&packet))
		return counted(PASSED, XDP_PASS);
	if (packet.group_source)
		return counted(DROPPED_BAD_SOURCE_MAC, XDP_DROP);
	if (headroom && *headroom && !make_headroom(ctx, *headroom))
		return counted(DROPPED_NO_HEADROOM, XDP_DROP);

	action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);
	return counted(action == XDP_REDIRECT ? REDIRECTED : DROPPED_NO_SOCKET, action);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
