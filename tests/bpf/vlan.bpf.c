// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What a VLAN device does, for kernels without it: `push` tags all frames that a NIC sends, `pop` takes the tag
 * off those that it receives and drops what has another one or none. `to_box` and `from_box` look at the frames
 * of a switch's port and count them. Runs only in tests.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN 42
#define VLAN_MASK 0xfff

/* Index of `seen`. */
enum { TO_BOX_TAGGED, TO_BOX_OTHER, FROM_BOX_TAGGED, FROM_BOX_OTHER, COUNTERS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline int is_tagged(const struct __sk_buff *skb)
{
	return skb->vlan_present && (skb->vlan_tci & VLAN_MASK) == VLAN;
}

static __always_inline int count(__u32 index)
{
	__u64 *frames = bpf_map_lookup_elem(&seen, &index);

	if (frames)
		__sync_fetch_and_add(frames, 1);
	return TC_ACT_OK;
}

SEC("tc")
int push(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int pop(struct __sk_buff *skb)
{
	return is_tagged(skb) && !bpf_skb_vlan_pop(skb) ? TC_ACT_OK : TC_ACT_SHOT;
}

SEC("tc")
int to_box(struct __sk_buff *skb)
{
	return count(is_tagged(skb) ? TO_BOX_TAGGED : TO_BOX_OTHER);
}

SEC("tc")
int from_box(struct __sk_buff *skb)
{
	return count(is_tagged(skb) ? FROM_BOX_TAGGED : FROM_BOX_OTHER);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
