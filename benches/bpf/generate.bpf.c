// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The load generator: BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES runs it over and over, and each run sends one
 * frame, or none when it is too early for the next.
 *
 * The kernel uses the pages of frames again without putting them in order, and receivers write to them. So every
 * byte of the headers is written each time. Nobody writes to the payload behind the time stamp.
 */
#include <stddef.h>

#include "traffic.h"

/* In the order of src/end_to_end/generator.rs. */
struct settings {
	__u64 headers[6]; /* of the frame, source port 0; of the last word two bytes count */
	__u32 udp_sum; /* of what UDP's checksum covers, source port and time stamp 0, in 16 bit words of memory */
	__u32 ifindex;
	__u32 flows;
	__u32 first_port;
	__u64 interval_ns; /* between frames; 0: as fast as it goes, without time stamps */
};

struct state {
	__u64 sent;
	__u64 next_ns;
	__u32 flow;
	__u32 align;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* One generator runs at a time, on one CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

/* A generator that was held up catches up on no more than so much. */
#define CATCH_UP_NS 200000

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Ones' complement sum of the four words of a time stamp. */
static __always_inline __u64 words(__u64 value)
{
	return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48);
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct state *now = bpf_map_lookup_elem(&state, &zero);
	__u64 *words_of_frame, time = 0;
	__u16 check;
	__be16 port;

	if (!set || !now || (void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (set->interval_ns) {
		time = bpf_ktime_get_ns();
		if (time < now->next_ns)
			return XDP_DROP;
		if (time - now->next_ns > CATCH_UP_NS)
			now->next_ns = time - CATCH_UP_NS;
		now->next_ns += set->interval_ns;
	}
	port = bpf_htons(set->first_port + now->flow);
	now->flow = now->flow + 1 < set->flows ? now->flow + 1 : 0;
	now->sent++;

	/* In whole words, which x86 and ARMv8 let begin anywhere. */
	words_of_frame = (void *)frame;
#pragma unroll
	for (int i = 0; i < 6; i++)
		words_of_frame[i] = set->headers[i];
	*(__u64 *)((void *)frame + offsetof(struct frame, sent_ns)) = time;
	frame->udp.source = port;
	check = ~fold(set->udp_sum + port + words(time));
	frame->udp.check = check ? check : 0xffff;
	return bpf_redirect(set->ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
