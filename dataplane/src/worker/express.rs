//! The way of packets that go on as the one before them did: plain packets of established flows.
//!
//! A batch is looked at in passes, each over all of its packets, so that memory has arrived by the time it is read and
//! each loop is small. [`Express::look`] reads the headers and asks for the first bucket of the flow; [`Express::find`]
//! reads it and notes the [`Way`] of the packet, or asks for where else the flow may be; [`Express::find_elsewhere`]
//! reads that; `pass` then writes the headers. Nothing here writes to any table. What goes this way,
//! [`crate::forward::decide`] would send the same way: a flow's entry says under which version of its listener it was
//! let in, and that is still the version.

use crate::conntrack::{BackendId, Control, FlowTable, Seconds};
use crate::forward::{Context, FlowTables};
use crate::memo::Memo;
use crate::memory;
use crate::packet::ethernet;
use crate::packet::plain::{self, Carries, Inner, Plain, Segment};
use crate::port::NicIndex;
use crate::table::Forwarding;

/// What is known of a packet of a batch before it is decided: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Sight {
    /// Words of the flow's key, two in IPv4; of the client's flow for a reply.
    pub key: [u64; 5],
    /// The flow's hash; of a translated flow its memo, of a reply its last hop.
    pub word: u64,
    /// Backend of the flow.
    pub backend: BackendId,
    /// See [`Inner`], to which the next three belong too.
    pub ip_length: u16,
    /// 0 if nothing is known of the packet.
    ip_offset: u8,
    /// See [`Inner`].
    pub traffic_class: u8,
    /// It is IPv6.
    pub is_v6: bool,
    /// See [`Segment`].
    pub tcp_flags: u8,
    /// Where it goes.
    pub way: Way,
    /// A number below 64 that tells its flow from most others.
    pub mark: u8,
}

const _: () = assert!(size_of::<Sight>() == memory::LINE);

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// That must be decided.
    Decide,
    /// It is plain, and its flow has yet to be looked up.
    Find,
    /// Likewise, and it goes to a source of translated flows.
    FindReply,
    /// To its backend as it is.
    Direct,
    /// To its backend through a tunnel.
    Tunnel,
    /// To its backend with new ends.
    Translate,
    /// To the client with new ends.
    Return,
}

impl Way {
    /// By [`Memo::mode_bits`].
    const BY_MODE: [Self; 4] = [Self::Direct, Self::Tunnel, Self::Translate, Self::Decide];
}

impl Sight {
    /// Of a packet that nothing is known of.
    pub const NONE: Self = Self {
        key: [0; 5],
        word: 0,
        backend: BackendId(0),
        ip_length: 0,
        ip_offset: 0,
        traffic_class: 0,
        is_v6: false,
        tcp_flags: 0,
        way: Way::Decide,
        mark: 0,
    };

    /// The packet in its frame.
    #[inline(always)]
    pub fn inner(&self) -> Inner {
        let &Self { ip_offset, ip_length, traffic_class, is_v6, .. } = self;
        Inner { ip_offset, ip_length, traffic_class, is_v6 }
    }

    /// It must be decided after all.
    pub fn undo(&mut self) {
        if self.way == Way::Return {
            // The key is no longer the packet's.
            self.ip_offset = 0;
        }
        self.way = Way::Decide;
    }

    fn words<const K: usize>(&self) -> &[u64; K] {
        const { assert!(K <= 5) };
        self.key.first_chunk().expect("no key is longer")
    }

    fn set_words<const K: usize>(&mut self, words: &[u64; K]) {
        *self.key.first_chunk_mut().expect("no key is longer") = *words;
    }
}

/// What all packets of a batch are looked at with.
#[derive(Clone, Copy)]
pub struct Express<'a> {
    /// The view of the batch.
    pub forwarding: &'a Forwarding,
    /// The flows.
    pub flows: &'a FlowTables,
    /// Now.
    pub now: Seconds,
}

impl<'a> Express<'a> {
    /// What packets from a NIC are decided by.
    pub fn context(&self, nic: NicIndex) -> Context<'a> {
        Context { table: &self.forwarding.table, flows: self.flows, nic, now: self.now }
    }

    /// Pass one: reads the headers of a packet of one piece, and asks for the first bucket of its flow.
    #[inline(always)]
    pub fn look(&self, sight: &mut Sight, frame: &[u8]) {
        sight.way = Way::Decide;
        sight.ip_offset = 0;
        sight.tcp_flags = 0;
        match plain::carries(frame) {
            Carries::V4 => {
                if let Some(segment) = plain::read_v4(frame, ethernet::HEADER_LENGTH) {
                    self.ask_v4(sight, &segment);
                }
            }
            Carries::V6 => {
                if let Some(segment) = plain::read_v6(frame, ethernet::HEADER_LENGTH) {
                    self.ask_v6(sight, &segment);
                }
            }
            Carries::Tag => self.look_behind_tag(sight, frame),
            Carries::Other => {}
        }
    }

    #[inline(never)]
    fn look_behind_tag(&self, sight: &mut Sight, frame: &[u8]) {
        match plain::read_tagged(frame) {
            Some(Plain::V4(segment)) => self.ask_v4(sight, &segment),
            Some(Plain::V6(segment)) => self.ask_v6(sight, &segment),
            None => {}
        }
    }

    #[inline(always)]
    fn ask_v4(&self, sight: &mut Sight, segment: &Segment<2>) {
        match &self.forwarding.table.nat {
            Some(nat) if nat.is_reply_v4(&segment.key) => ask(sight, segment, &nat.tables.v4, Way::FindReply),
            _ => ask(sight, segment, &self.flows.v4, Way::Find),
        }
    }

    #[inline(always)]
    fn ask_v6(&self, sight: &mut Sight, segment: &Segment<5>) {
        match &self.forwarding.table.nat {
            Some(nat) if nat.is_reply_v6(&segment.key) => ask(sight, segment, &nat.tables.v6, Way::FindReply),
            _ => ask(sight, segment, &self.flows.v6, Way::Find),
        }
    }

    /// Pass two: notes where packets go whose flow is in its first bucket, and asks for the other bucket of the rest.
    #[inline(always)]
    pub fn find(&self, sights: &mut [Sight]) {
        for sight in sights {
            match (sight.way, sight.is_v6) {
                (Way::Find, false) => self.find_flow(sight, &self.flows.v4),
                (Way::Find, true) => self.find_flow(sight, &self.flows.v6),
                (Way::FindReply, _) => self.each_reply(sight, Self::find_reply, Self::find_reply),
                _ => {}
            }
        }
    }

    /// Pass three: notes where the others go.
    #[inline(always)]
    pub fn find_elsewhere(&self, sights: &mut [Sight]) {
        for sight in sights {
            match (sight.way, sight.is_v6) {
                (Way::Find, false) => self.find_flow_elsewhere(sight, &self.flows.v4),
                (Way::Find, true) => self.find_flow_elsewhere(sight, &self.flows.v6),
                (Way::FindReply, _) => {
                    self.each_reply(sight, Self::find_reply_elsewhere, Self::find_reply_elsewhere);
                }
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn find_flow<const K: usize>(&self, sight: &mut Sight, flows: &FlowTable<K, 1>) {
        let places = flows.places_of(sight.word);
        match flows.find_first(sight.words(), &places) {
            Some(hit) => self.follow(sight, hit.control, Memo(hit.value[0])),
            None => flows.prefetch_second(&places),
        }
    }

    #[inline(never)]
    fn find_flow_elsewhere<const K: usize>(&self, sight: &mut Sight, flows: &FlowTable<K, 1>) {
        match flows.find_second(sight.words(), &flows.places_of(sight.word)) {
            Some(hit) => self.follow(sight, hit.control, Memo(hit.value[0])),
            None => sight.way = Way::Decide,
        }
    }

    /// Does one or the other with the table of the packet's family.
    #[inline(never)]
    fn each_reply(
        &self,
        sight: &mut Sight,
        v4: impl Fn(&Self, &mut Sight, &FlowTable<2, 3>),
        v6: impl Fn(&Self, &mut Sight, &FlowTable<5, 6>),
    ) {
        match &self.forwarding.table.nat {
            Some(nat) if sight.is_v6 => v6(self, sight, &nat.tables.v6),
            Some(nat) => v4(self, sight, &nat.tables.v4),
            None => sight.way = Way::Decide,
        }
    }

    fn find_reply<const K: usize, const R: usize>(&self, sight: &mut Sight, replies: &FlowTable<K, R>) {
        let places = replies.places_of(sight.word);
        match replies.find_first(sight.words(), &places) {
            Some(hit) => self.follow_back::<K, R>(sight, hit.control, &hit.value),
            None => replies.prefetch_second(&places),
        }
    }

    fn find_reply_elsewhere<const K: usize, const R: usize>(
        &self,
        sight: &mut Sight,
        replies: &FlowTable<K, R>,
    ) {
        match replies.find_second(sight.words(), &replies.places_of(sight.word)) {
            Some(hit) => self.follow_back::<K, R>(sight, hit.control, &hit.value),
            None => sight.way = Way::Decide,
        }
    }

    /// Goes back to the client whose flow and last hop are these.
    fn follow_back<const K: usize, const R: usize>(
        &self,
        sight: &mut Sight,
        control: Control,
        value: &[u64; R],
    ) {
        if !self.is_quiet(sight, control, u32::MAX) {
            sight.way = Way::Decide;
            return;
        }
        let (flow, last_hop) = value.split_first_chunk::<K>().expect("a flow and its last hop");
        sight.set_words(flow);
        sight.word = last_hop[0];
        sight.backend = control.backend();
        sight.way = Way::Return;
    }

    /// Goes where the flow's entry says.
    #[inline(always)]
    fn follow(&self, sight: &mut Sight, control: Control, memo: Memo) {
        let permit = self.forwarding.table.permit(memo.version());
        let known_for_s = permit.map_or(0, |permit| permit.known_for_s.into());
        sight.backend = control.backend();
        sight.way = Way::BY_MODE[memo.mode_bits()];
        if sight.way == Way::Translate {
            sight.word = memo.0;
        }
        if !self.is_quiet(sight, control, known_for_s) {
            sight.way = Way::Decide;
        }
        if let Some(exit) = self.forwarding.exits.get(sight.backend.0 as usize) {
            memory::prefetch(exit);
        }
    }

    /// Whether a packet leaves its flow's entry as it is.
    #[inline(always)]
    fn is_quiet(&self, sight: &Sight, control: Control, known_for_s: u32) -> bool {
        let quiet = &self.forwarding.quiet[control.state_bits()];
        let known = control.idle_s(self.now) < quiet.known_for_s.min(known_for_s);
        known && sight.tcp_flags & quiet.moving == 0
    }
}

#[inline(always)]
fn ask<const K: usize, const V: usize>(
    sight: &mut Sight,
    segment: &Segment<K>,
    table: &FlowTable<K, V>,
    way: Way,
) {
    let places = table.places(&segment.key);
    table.prefetch_first(&places);
    sight.set_words(&segment.key);
    sight.word = places.hash;
    sight.mark = places.hash as u8 % 64;
    sight.ip_length = segment.inner.ip_length;
    sight.ip_offset = segment.inner.ip_offset;
    sight.traffic_class = segment.inner.traffic_class;
    sight.is_v6 = segment.inner.is_v6;
    sight.tcp_flags = segment.tcp_flags;
    sight.way = way;
}
