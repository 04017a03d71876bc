//! The rules, one by one.

use std::net::SocketAddr;

use shunt_api::counters::DropReason;
use shunt_api::explain::{Explanation, PacketQuestion, Rule, Step, Verdict};
use shunt_api::snapshot::{Mode, ServicePort, UnlistedPorts};

use super::Grounds;
use crate::flow::{End, FlowKey};
use crate::flows;
use crate::forward::{self, Context, Known, Reply, Stale};
use crate::nat::LastHop;
use crate::neighbor;
use crate::packet::Packet;
use crate::port::NicIndex;
use crate::reply;
use crate::report;
use crate::rewrite::{self, Outer};
use crate::table::{Exit, Listener, Member, Owned};

/// An answer as it grows.
pub struct Story<'a> {
    packet: Packet,
    grounds: &'a Grounds<'a>,
    /// What the packet's own headers say when it leaves.
    ends: (String, SocketAddr),
    told: Explanation,
}

impl<'a> Story<'a> {
    /// Of a packet of which nothing has been said.
    pub fn of(question: PacketQuestion, packet: Packet, grounds: &'a Grounds<'a>) -> Self {
        let told = Explanation {
            packet: question,
            generation: grounds.forwarding.table.generation,
            supposed: false,
            verdict: Verdict::Drop,
            reason: None,
            service: None,
            backend: None,
            mode: None,
            flow: None,
            slot: None,
            next_hop: None,
            steps: Vec::new(),
        };
        Self { packet, grounds, ends: (question.source.to_string(), question.destination), told }
    }

    /// All of it.
    pub fn told(mut self) -> Explanation {
        self.tell();
        self.told
    }

    fn tell(&mut self) {
        let (flow, table) = (self.packet.flow, &self.grounds.forwarding.table);
        let address = flow.vip();
        match table.owned_as(address) {
            None => {
                let said = format!(
                    "{address} is no VIP and no source of translated flows: packets to it are the host's"
                );
                self.concluded(Verdict::Pass, None, Rule::Address, said);
            }
            Some(Owned::Source) => self.for_source(),
            Some(Owned::Vip(policy)) => {
                self.step(Rule::Address, format!("{address} is a VIP"));
                match table.listener_of(&flow) {
                    Some(index) => self.for_service(index),
                    None => {
                        let refusal = forward::refusal(&self.packet, policy);
                        self.refused(
                            Rule::Service,
                            &format!("no service has {}", flow.service_port()),
                            refusal,
                        );
                    }
                }
            }
        }
    }

    /// The packet answers a translated flow, or nobody asked for it.
    fn for_source(&mut self) {
        let (table, address) = (&self.grounds.forwarding.table, self.packet.flow.vip());
        self.step(Rule::Address, format!("{address} is a source of translated flows"));
        match forward::peek(&self.packet, self.context()) {
            Some(forward::Verdict::Return { backend, translation, last_hop }) => {
                self.told.backend = table.address(backend);
                self.told.mode = Some(Mode::Nat);
                let (client, vip) = (address_of(translation.destination), address_of(translation.source));
                let port = ServicePort { protocol: self.packet.flow.protocol(), port: vip.port() };
                let flow = FlowKey::new(translation.destination, translation.source, port.protocol);
                let listener = flow.and_then(|flow| table.listener_of(&flow));
                self.told.service = listener.map(|index| table.listener(index).service.to_string());
                let said = format!(
                    "it answers the flow {client} -> {vip}, and goes back to its client as from {vip}"
                );
                self.decided(Rule::FlowTable, said);
                self.returns(last_hop, (vip, client));
            }
            _ => {
                let refusal = forward::refusal(&self.packet, UnlistedPorts::Reject);
                self.refused(Rule::FlowTable, "it answers no flow that is remembered", refusal);
            }
        }
    }

    /// By the way that the client's packets come.
    fn returns(&mut self, last_hop: LastHop, (from, to): (SocketAddr, SocketAddr)) {
        let name = self.nic_name(last_hop.nic());
        let Some(nic) = self.grounds.forwarding.nics.get(usize::from(last_hop.nic().0)) else {
            let said = format!("the client's packets came by {name}, which Shunt no longer serves");
            return self.dropped(DropReason::NoRoute, Rule::Way, said);
        };
        let tag = last_hop.vlan().map_or_else(String::new, |tag| format!(", VLAN {}", tag.id));
        self.step(
            Rule::Way,
            format!("by {name}{tag} to {}, where the client's packets come from", last_hop.mac()),
        );
        if self.fits(nic.mtu, false) {
            let protocol = self.packet.flow.protocol();
            let said = format!("Ethernet {} -> {} | {protocol} {from} -> {to}", nic.mac, last_hop.mac());
            self.concluded(Verdict::Return, None, Rule::Wire, said);
        }
    }

    fn for_service(&mut self, index: u32) {
        let table = &self.grounds.forwarding.table;
        let (listener, client) = (table.listener(index), self.packet.flow.client());
        self.told.service = Some(listener.service.to_string());
        self.step(Rule::Service, format!("{} has {}", listener.service, self.packet.flow.service_port()));
        let (allowed, said) = match (listener.is_restricted(), listener.allows(client)) {
            (false, _) => (true, "it lets in all clients".to_owned()),
            (true, true) => (true, format!("{client} is in its source ranges")),
            (true, false) => (false, format!("{client} is in none of its source ranges")),
        };
        if !allowed {
            return self.dropped(DropReason::SourceDenied, Rule::SourceRange, said);
        }
        self.step(Rule::SourceRange, said);
        let known = forward::known(&self.packet, self.context(), index);
        let followed = known.named.and_then(Result::ok);
        self.flow_table(&known);
        let chosen = known.kept.or(known.chosen);
        // An entry that is not followed counts where a backend is chosen anew.
        let found = followed.or(chosen.filter(|_| known.entry.is_some()));
        if found.is_none() && table.owned_as(client).is_some() {
            let said = format!("{client} is an address of Shunt's own: nobody else may use it");
            return self.dropped(DropReason::FromOurAddress, Rule::Address, said);
        }
        self.affinity(listener, &known, followed.is_some());
        let kept = known.kept.filter(|_| followed.is_none());
        self.maglev(listener, &known, followed.or(kept).is_none());
        match followed.or(kept).or(known.chosen) {
            Some(member) => self.for_member(listener, *table.pool(listener.pool).member(member), &known),
            None => {
                self.dropped(DropReason::NoBackend, Rule::Backend, "no backend takes new flows".to_owned());
            }
        }
    }

    fn flow_table(&mut self, known: &Known) {
        let Some((entry, named)) = known.entry.zip(known.named) else {
            return self.step(Rule::FlowTable, "the flow has no entry".to_owned());
        };
        let table = &self.grounds.forwarding.table;
        let view = flows::view(table, self.grounds.now, self.packet.flow, entry);
        let to =
            view.backend.map_or_else(|| "a backend that is gone".to_owned(), |backend| backend.to_string());
        let entry = format!("the flow is {} to {to}, its last packet {} s ago", view.state, view.idle_s);
        self.told.flow = Some(view);
        match named {
            Ok(_) => self.decided(Rule::FlowTable, format!("{entry}: followed")),
            Err(stale) => {
                self.step(Rule::FlowTable, format!("{entry}: {}, so a backend is chosen anew", why(stale)));
            }
        }
    }

    fn affinity(&mut self, listener: &Listener, known: &Known, followed: bool) {
        let Some(affinity) = listener.affinity else { return };
        let pool = self.grounds.forwarding.table.pool(listener.pool);
        let said = match known.kept {
            Some(member) => format!(
                "the client keeps {}, as for {} s after a packet",
                pool.member(member).address,
                affinity.timeout_s
            ),
            None => "the client keeps no backend yet".to_owned(),
        };
        match known.kept {
            Some(_) if !followed => self.decided(Rule::Affinity, said),
            _ => self.step(Rule::Affinity, said),
        }
    }

    fn maglev(&mut self, listener: &Listener, known: &Known, decides: bool) {
        let table = &self.grounds.forwarding.table;
        let Some(((slot, slots), member)) = table.slot(listener, &self.packet.flow).zip(known.chosen) else {
            return;
        };
        self.told.slot = Some(slot);
        let hashed = if listener.affinity.is_some() { "client" } else { "flow" };
        let chosen = table.pool(listener.pool).member(member).address;
        let said = format!("the {hashed}'s hash falls into slot {slot} of {slots}, which is {chosen}'s");
        if decides { self.decided(Rule::Maglev, said) } else { self.step(Rule::Maglev, said) }
    }

    fn for_member(&mut self, listener: &Listener, member: Member, known: &Known) {
        self.told.backend = Some(member.address);
        self.told.mode = Some(member.mode);
        self.step(Rule::Backend, format!("{} by {}", member.address, way_of(member.mode)));
        if member.mode == Mode::Nat {
            self.source(listener, &member, known);
        }
        let forwarding = self.grounds.forwarding;
        let exit = forwarding.exit(member.backend);
        let outer = exit.and_then(|exit| exit.outer(member.mode, known.hash).map(|outer| (exit, outer)));
        match outer {
            Ok((exit, outer)) => self.leaves(&member, exit, outer.as_ref()),
            Err(reason) => {
                let said = self.obstacle(&member, reason);
                self.dropped(reason, Rule::Way, said);
            }
        }
    }

    fn source(&mut self, listener: &Listener, member: &Member, known: &Known) {
        let to = SocketAddr::new(member.address, listener.target);
        let (from, said) = match known.translation.map(|translation| address_of(translation.source)) {
            Some(from) => {
                (from.to_string(), format!("it leaves from {from} to {to}, as the flow's packets before"))
            }
            None => (
                "a source's port".to_owned(),
                format!(
                    "a port of a source is taken when it comes, if one is free (nat_exhausted counts those for which none was); from there to {to}"
                ),
            ),
        };
        self.ends = (from, to);
        self.step(Rule::Source, said);
    }

    fn obstacle(&self, member: &Member, reason: DropReason) -> String {
        let address = member.address;
        match (reason, self.grounds.hops.get(&address)) {
            (DropReason::RouteElsewhere, Some(neighbor::Hop::RouteElsewhere { ifname })) => {
                format!("the route to {address} leaves by {ifname}, which Shunt does not serve")
            }
            (DropReason::NoRoute, _) if member.mode == Mode::Ipip => {
                format!("there is no route to {address}, or no address of its family to tunnel from")
            }
            (DropReason::NoRoute, _) => format!("there is no route to {address}"),
            (DropReason::NeighborUnresolved, None) => {
                format!("nobody has asked for the way to {address} yet: it is looked for once it is in force")
            }
            (DropReason::BackendNotOnLink, _) => {
                format!("{address} is behind a router, where direct routing does not reach; use ipip")
            }
            _ => format!("{address} is not known on the link, or does not answer"),
        }
    }

    fn leaves(&mut self, member: &Member, exit: &Exit, outer: Option<&Outer>) {
        let nic = self.nic_name(exit.nic);
        let hop = report::resolved(&nic, &exit.link, self.grounds.hops.get(&member.address));
        let by =
            hop.gateway.map_or_else(|| "on the link".to_owned(), |gateway| format!("by router {gateway}"));
        let tag = hop.vlan.map_or_else(String::new, |vlan| format!(", VLAN {vlan}"));
        self.step(Rule::Way, format!("{} {by}: {nic}{tag} to {}, MTU {}", member.address, hop.mac, hop.mtu));
        self.told.next_hop = Some(hop);
        let granted =
            self.grounds.forwarding.table.tunnel.fragment || matches!(self.packet.flow, FlowKey::V6(_));
        let splits = granted && matches!(outer, Some(Outer::V4 { .. }));
        if !self.fits(rewrite::room(&exit.link, outer), splits) {
            return;
        }
        let verdict = if member.mode == Mode::Nat { Verdict::Translate } else { Verdict::Forward };
        let said = self.wire(exit, outer);
        self.concluded(verdict, None, Rule::Wire, said);
    }

    /// Whether it fits, or may leave in two pieces; if not, that is the end.
    fn fits(&mut self, room: u32, splits: bool) -> bool {
        let length = u32::from(self.packet.ip_length);
        let is_told = reply::is_told_too_big(&self.packet);
        if length <= room || splits && !is_told {
            let whole = if length > room { ", so it leaves in two pieces" } else { "" };
            self.step(Rule::Length, format!("{length} bytes of {room} that fit{whole}"));
            return true;
        }
        let said = format!("its {length} bytes do not fit: {room} do");
        if is_told && self.answers() {
            let said = format!("{said}; its sender is told so");
            self.concluded(Verdict::Reply, Some(DropReason::TooBig.name()), Rule::Length, said);
        } else {
            self.dropped(DropReason::TooBig, Rule::Length, format!("{said}, and its sender is not told"));
        }
        false
    }

    /// Whether anybody is answered; how many were in this second is not looked at.
    fn answers(&self) -> bool {
        self.grounds.forwarding.table.reply_rate > 0
    }

    fn wire(&self, exit: &Exit, outer: Option<&Outer>) -> String {
        let mut parts = vec![format!("Ethernet {} -> {}", exit.link.source, exit.link.destination)];
        parts.extend(exit.link.vlan.map(|tag| format!("VLAN {}", tag.id)));
        parts.extend(outer.map(|outer| match outer {
            Outer::V4 { source, destination } => format!("IPv4 {source} -> {destination}"),
            Outer::V6 { source, destination, .. } => format!("IPv6 {source} -> {destination}"),
        }));
        let (source, destination) = &self.ends;
        parts.push(format!("{} {source} -> {destination}", self.packet.flow.protocol()));
        parts.join(" | ")
    }

    fn context(&self) -> Context<'_> {
        let Grounds { forwarding, flows, now, .. } = *self.grounds;
        Context { table: &forwarding.table, flows, nic: NicIndex(0), now }
    }

    fn nic_name(&self, nic: NicIndex) -> String {
        self.grounds.nics.get(usize::from(nic.0)).cloned().unwrap_or_else(|| format!("NIC {}", nic.0))
    }

    fn step(&mut self, rule: Rule, finding: String) {
        self.told.steps.push(Step { rule, finding, decides: false });
    }

    fn decided(&mut self, rule: Rule, finding: String) {
        self.told.steps.push(Step { rule, finding, decides: true });
    }

    fn concluded(&mut self, verdict: Verdict, reason: Option<&str>, rule: Rule, finding: String) {
        let decides = !matches!(verdict, Verdict::Forward | Verdict::Translate | Verdict::Return);
        self.told.steps.push(Step { rule, finding, decides });
        self.told.verdict = verdict;
        self.told.reason = reason.map(str::to_owned);
    }

    fn dropped(&mut self, reason: DropReason, rule: Rule, finding: String) {
        self.concluded(Verdict::Drop, Some(reason.name()), rule, finding);
    }

    fn refused(&mut self, rule: Rule, finding: &str, refusal: forward::Verdict) {
        match refusal {
            forward::Verdict::Reply(_) if !self.answers() => {
                self.dropped(
                    DropReason::UnlistedPort,
                    rule,
                    format!("{finding}: dropped, as reply_rate is 0"),
                );
            }
            forward::Verdict::Reply(Reply::Reset) => {
                self.concluded(
                    Verdict::Reply,
                    Some("reset"),
                    rule,
                    format!("{finding}: answered with a TCP reset"),
                );
            }
            forward::Verdict::Reply(_) => {
                self.concluded(
                    Verdict::Reply,
                    Some("unreachable"),
                    rule,
                    format!("{finding}: answered with ICMP port unreachable"),
                );
            }
            _ => self.dropped(DropReason::UnlistedPort, rule, format!("{finding}: dropped")),
        }
    }
}

fn address_of((address, port): End) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn why(stale: Stale) -> &'static str {
    match stale {
        Stale::TimedOut => "idle for too long",
        Stale::Gone => "that one is down or no longer in the pool",
        Stale::Leaves => "it is over, and that one takes no new connections",
    }
}

fn way_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Dr => "direct routing (dr)",
        Mode::Ipip => "a tunnel (ipip)",
        Mode::Nat => "translation (nat)",
    }
}
