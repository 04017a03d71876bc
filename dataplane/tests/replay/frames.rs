//! Frames, and the box that they are for.

use etherparse::{Ethernet2Header, PacketBuilder, PacketBuilderStep};
use shunt_api::compile::compile;
use shunt_api::config::Config;
use shunt_api::snapshot::{FleetKey, Snapshot};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
pub const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const CLIENT: [u8; 4] = [198, 51, 100, 7];
pub const VIP: [u8; 4] = [203, 0, 113, 10];
pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

/// One service for each mode.
pub const CONFIG: &str = r#"
nic = [{ name = "eth1" }]
nat = { sources = "10.0.0.250" }

[pools.direct]
backends = [{ name = "d1", address = "10.0.0.1" }]
[pools.tunnel]
mode = "ipip"
backends = [{ name = "t1", address = "10.0.0.2" }]
[pools.translated]
mode = "nat"
backends = [{ name = "n1", address = "10.0.0.3" }]

[[service]]
name = "web"
vip = "203.0.113.10"
ports = "tcp/80"
pool = "direct"
[[service]]
name = "far"
vip = "203.0.113.10"
ports = "tcp/81"
pool = "tunnel"
[[service]]
name = "dns"
vip = "203.0.113.10"
ports = "udp/53:5353"
pool = "translated"
source_ranges = "198.51.100.0/24"
"#;

pub fn snapshot() -> Snapshot {
    compile(&Config::parse(CONFIG, "shunt.toml").unwrap(), FleetKey([0; 16]))
}

fn ethernet() -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(CLIENT_MAC, BOX_MAC)
}

fn built(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

pub fn tcp(client_port: u16, vip: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    let mut frame = built(|frame| {
        ethernet().ipv4(CLIENT, vip, 64).tcp(client_port, port, 1, 1024).write(frame, b"hello").unwrap();
    });
    frame[47] = flags;
    frame
}

pub fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    built(|frame| ethernet().ipv4(from.0, to.0, 64).udp(from.1, to.1).write(frame, b"query").unwrap())
}

pub fn echo() -> Vec<u8> {
    built(|frame| ethernet().ipv4(CLIENT, VIP, 64).icmpv4_echo_request(1, 2).write(frame, b"ping").unwrap())
}

pub fn arp() -> Vec<u8> {
    [&BOX_MAC[..], &CLIENT_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat()
}
