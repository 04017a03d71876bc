// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The backend's end: counts the generator's frames by the way they were forwarded, drops them, enters the time they
 * took into a histogram, and keeps one in 1024 for a closer look. Everything else goes to the stack.
 */
#include "traffic.h"

/* How a frame came; in the order of src/end_to_end/sink.rs. */
enum kind { AS_SENT, TUNNELLED, TRANSLATED, KINDS };

/* In the order of src/end_to_end/sink.rs. */
struct settings {
	__be32 vip;
	__be16 port;
	__u16 timing; /* whether delays are noted */
};

#define SAMPLES 64
#define SAMPLE_EVERY 1024
#define SAMPLE_BYTES 1600

struct sample {
	__u32 length;
	__u8 bytes[SAMPLE_BYTES];
};

/* A log-linear histogram: 32 buckets for each power of two. src/end_to_end/histogram.rs reads it. */
#define STEPS_BITS 5
#define BUCKETS (40 << STEPS_BITS)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} delays SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SAMPLES);
	__type(key, __u32);
	__type(value, struct sample);
} samples SEC(".maps");

static __always_inline __u32 bucket(__u64 value)
{
	__u32 power = 0;
	__u64 rest = value;

	if (value < 1 << STEPS_BITS)
		return value;
#pragma unroll
	for (int bits = 32; bits; bits /= 2)
		if (rest >> bits) {
			rest >>= bits;
			power += bits;
		}
	power -= STEPS_BITS;
	rest = ((__u64)(power + 1) << STEPS_BITS) + ((value >> power) - (1 << STEPS_BITS));
	return rest < BUCKETS ? rest : BUCKETS - 1;
}

static __always_inline void note_delay(__u64 sent_ns)
{
	__u32 index = bucket(bpf_ktime_get_ns() - sent_ns);
	__u64 *delay = bpf_map_lookup_elem(&delays, &index);

	if (delay)
		++*delay;
}

static __always_inline void keep(struct xdp_md *ctx, __u64 count)
{
	__u32 index = count / SAMPLE_EVERY % SAMPLES;
	struct sample *sample = bpf_map_lookup_elem(&samples, &index);
	__u64 length = bpf_xdp_get_buff_len(ctx);

	if (!sample || length < 1 || length > SAMPLE_BYTES)
		return;
	if (!bpf_xdp_load_bytes(ctx, 0, sample->bytes, length))
		sample->length = length;
}

static __always_inline int is_test_packet(const struct frame *frame, __be16 port)
{
	return frame->ip.version == 4 && frame->ip.ihl == 5 && frame->ip.protocol == IPPROTO_UDP &&
	       frame->udp.dest == port;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct settings *set;
	__u32 kind, zero = 0;
	__u64 *count, sent_ns;

	set = bpf_map_lookup_elem(&settings, &zero);
	if (!set || (void *)(frame + 1) > end || frame->ethernet.h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (is_test_packet(frame, set->port)) {
		kind = frame->ip.daddr == set->vip ? AS_SENT : TRANSLATED;
		sent_ns = frame->sent_ns;
	} else if (frame->ip.ihl == 5 && frame->ip.protocol == IPPROTO_IPIP) {
		/* The rest of the inner frame stands one IP header further on. */
		frame = (void *)frame + sizeof(struct iphdr);
		if ((void *)(frame + 1) > end || !is_test_packet(frame, set->port))
			return XDP_PASS;
		kind = TUNNELLED;
		sent_ns = frame->sent_ns;
	} else {
		return XDP_PASS;
	}

	count = bpf_map_lookup_elem(&counts, &kind);
	if (!count)
		return XDP_PASS;
	if (sent_ns && set->timing)
		note_delay(sent_ns);
	if (++*count % SAMPLE_EVERY == 0)
		keep(ctx, *count);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
