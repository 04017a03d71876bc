//! What became of a packet, in words.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket};
use shunt_api::counters::Counter;
use shunt_api::snapshot::Mode;
use shunt_dataplane::flow::FlowKey;
use shunt_dataplane::forward::{Decision, Reply, Verdict};
use shunt_dataplane::nat::Translation;
use shunt_dataplane::notices::Notice;
use shunt_dataplane::packet::Packet;
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::table::{Member, Table};
use shunt_dataplane::worker::Fate;

use crate::checksum::Ends;
use crate::language::{self, SEPARATOR};
use crate::print::{self, Layer};

/// Columns of a line.
const WIDTH: usize = 110;

/// What was told of one packet.
pub struct Told {
    pub packet: Option<Packet>,
    pub decision: Option<Decision>,
    pub fate: Fate,
    pub counted: Vec<Counter>,
}

/// Kinds of outcomes that cases have shown, each in words.
#[derive(Default)]
pub struct Seen(pub BTreeSet<String>);

impl Told {
    /// `VERDICT, FATE; COUNTERS`
    pub fn line(&self, table: &Table) -> String {
        let verdict = self.decision.map(|decision| verdict(decision.verdict, table));
        let fate = match self.fate {
            Fate::Sent(_) => None,
            Fate::Dropped(reason) => Some(format!("drop {}", reason.name())),
        };
        let fate = fate.filter(|fate| Some(fate) != verdict.as_ref());
        let line: Vec<String> = verdict.into_iter().chain(fate).collect();
        let counted: Vec<&str> = self.counted.iter().map(|counter| counter.name()).collect();
        let counted = if counted.is_empty() { String::new() } else { format!("; {}", counted.join(", ")) };
        line.join(", ") + &counted
    }
}

fn verdict(verdict: Verdict, table: &Table) -> String {
    match verdict {
        Verdict::Forward { listener, member } => {
            let (service, member) = chosen(listener, member, table);
            format!("forward {service} {} {}", member.address, member.mode)
        }
        Verdict::Translate { listener, member, translation } => {
            let (service, _) = chosen(listener, member, table);
            format!("translate {service} {}", ends_of(&translation))
        }
        Verdict::Return { translation, .. } => format!("return {}", ends_of(&translation)),
        Verdict::Reply(reply) => format!("reply {}", reply_name(reply)),
        Verdict::Drop(reason) => format!("drop {}", reason.name()),
    }
}

fn reply_name(reply: Reply) -> &'static str {
    match reply {
        Reply::Echo => "echo",
        Reply::Reset => "reset",
        Reply::Unreachable => "unreachable",
    }
}

fn chosen(listener: u32, member: u16, table: &Table) -> (&str, &Member) {
    let listener = table.listener(listener);
    (&listener.service, table.pool(listener.pool).member(member))
}

fn ends_of(translation: &Translation) -> String {
    format!("{} > {}", SocketAddr::from(translation.source), SocketAddr::from(translation.destination))
}

/// A notice in words.
pub fn notice(notice: Notice, table: &Table, seen: &mut Seen) -> String {
    let text = match notice {
        Notice::TunnelTooBig { backend, mtu } => {
            format!("notice tunnel_too_big {} mtu {mtu}", address(table.address(backend)))
        }
        Notice::Looped { backend } => format!("notice looped {}", address(table.address(backend))),
    };
    seen.0.extend(text.split_whitespace().nth(1).map(|kind| format!("notice {kind}")));
    text
}

fn address(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".into(), |address| address.to_string())
}

/// A frame that left: in the packet language, and its bytes. It must build again from its text.
pub fn frame(nic: NicIndex, frame: &[u8]) -> Vec<String> {
    let layers = print::frame(frame);
    let text = text(&layers);
    assert_eq!(language::frame(&text).as_deref(), Ok(frame), "{text} is not what was sent");
    let mut lines = wrapped(&format!("nic {}: {text}", nic.0));
    lines.extend(layers.iter().flat_map(Layer::hex).map(|line| format!("    {line}")));
    lines
}

/// Layers in the packet language.
pub fn text(layers: &[Layer<'_>]) -> String {
    let texts = layers.iter().map(|layer| layer.text.as_str()).filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join(SEPARATOR)
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for layer in text.split(SEPARATOR) {
        let line = lines.last_mut().expect("there is one");
        match line.len() {
            0 => line.push_str(layer),
            length if length + SEPARATOR.len() + layer.len() <= WIDTH => {
                *line += &format!("{SEPARATOR}{layer}");
            }
            _ => lines.push(format!("   {SEPARATOR}{layer}")),
        }
    }
    lines.iter().flat_map(|line| broken(line)).collect()
}

/// A line of one long layer in several.
fn broken(line: &str) -> Vec<String> {
    let at = line.get(..WIDTH).and_then(|start| start.rfind(' '));
    let Some(at) = at.filter(|_| line.len() > WIDTH) else { return vec![line.to_owned()] };
    let mut lines = vec![line[..at].to_owned()];
    lines.extend(broken(&format!("      {}", &line[at + 1..])));
    lines
}

/// The ends of a frame's IP packet.
pub fn ends(sliced: &SlicedPacket<'_>) -> Option<Ends> {
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let (source, destination) =
                (ip.header().source_addr().into(), ip.header().destination_addr().into());
            Some(Ends { source, destination })
        }
        Some(NetSlice::Ipv6(ip)) => {
            let (source, destination) =
                (ip.header().source_addr().into(), ip.header().destination_addr().into());
            Some(Ends { source, destination })
        }
        _ => None,
    }
}

impl Seen {
    /// Adds what was told of one packet.
    pub fn add(&mut self, told: &Told, table: &Table) {
        if let Fate::Dropped(reason) = told.fate {
            self.0.insert(format!("drop {}", reason.name()));
            return;
        }
        let (Some(packet), Some(decision)) = (told.packet, told.decision) else { return };
        let family = if matches!(packet.flow, FlowKey::V4(_)) { 4 } else { 6 };
        let kind = match decision.verdict {
            _ if told.counted.contains(&Counter::TooBigReplies) => format!("reply too_big v{family}"),
            Verdict::Reply(reply) => format!("reply {} v{family}", reply_name(reply)),
            Verdict::Forward { listener, member } => match chosen(listener, member, table).1 {
                Member { mode: Mode::Ipip, address, .. } => {
                    format!("ipip {family}in{}", if address.is_ipv4() { 4 } else { 6 })
                }
                member => format!("{} v{family}", member.mode),
            },
            Verdict::Translate { .. } => format!("nat v{family}"),
            Verdict::Return { .. } => format!("return v{family}"),
            Verdict::Drop(_) => return,
        };
        self.0.insert(kind);
    }
}
