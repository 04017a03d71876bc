//! The language against an independent builder.

use etherparse::{Icmpv4Type, IpFragOffset, IpHeaders, Ipv4Header, Ipv4Options, PacketBuilder};

use super::frame;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xfe, 1];
const SHUNT: [u8; 6] = [2, 0, 0, 0, 0xaa, 0];

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

#[test]
fn what_a_text_builds_is_what_etherparse_builds() {
    let v6: [[u8; 16]; 2] =
        ["2001:db8:c::1", "2001:db8::10"].map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let options = Ipv4Header {
        identification: 7,
        dont_fragment: true,
        time_to_live: 3,
        source: [192, 0, 2, 1],
        destination: [203, 0, 113, 10],
        options: Ipv4Options::from([1, 1, 1, 0]),
        fragment_offset: IpFragOffset::ZERO,
        ..Default::default()
    };
    let ethernet = || PacketBuilder::ethernet2(ROUTER, SHUNT);
    let ipv4 = || ethernet().ipv4([192, 0, 2, 1], [203, 0, 113, 10], 64);
    let cases = [
        (
            "eth / ipv4 192.0.2.1 > 203.0.113.10 df / tcp 40000 > 80 SAE seq 5 ack 6 win 1024 / \"odd\"",
            written(|frame| {
                ipv4().tcp(40000, 80, 5, 1024).syn().ece().ack(6).write(frame, b"odd").unwrap();
            }),
        ),
        (
            "eth vlan 100 / ipv6 2001:db8:c::1 > 2001:db8::10 hops 9 / udp 40000 > 53 / \"query\"",
            written(|frame| {
                let vlan = ethernet().single_vlan(100.try_into().unwrap());
                vlan.ipv6(v6[0], v6[1], 9).udp(40000, 53).write(frame, b"query").unwrap();
            }),
        ),
        (
            "eth router > shunt / ipv4 192.0.2.1 > 203.0.113.10 ttl 3 id 7 df opt 01010100 / udp 1 > 2 / hex 00",
            written(|frame| {
                let ip = IpHeaders::Ipv4(options, Default::default());
                ethernet().ip(ip).udp(1, 2).write(frame, &[0]).unwrap();
            }),
        ),
        (
            "eth / ipv4 192.0.2.1 > 203.0.113.10 df / icmp echo id 1 seq 2 / bytes 3",
            written(|frame| {
                let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 2 });
                ipv4().icmpv4(echo).write(frame, &[0, 1, 2]).unwrap();
            }),
        ),
        (
            "eth / ipv6 2001:db8:c::1 > 2001:db8::10 / icmp6 echo id 1 seq 2 / bytes 3",
            written(|frame| {
                let ip = ethernet().ipv6(v6[0], v6[1], 64);
                ip.icmpv6_echo_request(1, 2).write(frame, &[0, 1, 2]).unwrap();
            }),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(frame(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn remarks_say_nothing_and_mistakes_are_refused() {
    let good = "eth / ipv4 192.0.2.1 > 203.0.113.10 / tcp 1 > 2 S checksum 0xbad";
    let remark = format!("{good} (0x1234 would be right)");
    assert_eq!(frame(&remark), frame(good));
    for (bad, expected) in [
        ("eth / ipv5", "`ipv5` is not a layer"),
        ("eth / ipv4 192.0.2.1 > 203.0.113.10 ttl 256 / tcp 1 > 2 S", "`256` is not a number that fits"),
        ("eth / ipv4 192.0.2.1 > 203.0.113.10 tll 1 / tcp 1 > 2 S", "`tll 1` is not understood"),
        ("eth / ipv4 192.0.2.1 > 203.0.113.10 / tcp 1 > 2 X", "`X` is not made of FSRPAUEW"),
        ("eth / ipv4 192.0.2.1 > 203.0.113.10 / hex 00", "needs `proto`"),
        ("eth / hex 0", "not made of pairs"),
        ("eth / hex 00", "needs a type"),
        ("eth nobody > shunt / ipv4 192.0.2.1 > 203.0.113.10 proto 6", "`nobody` is not a station"),
        ("eth / ipv4 192.0.2.1 > 203.0.113.10 part 0-9 proto 6", "the packet has 0 bytes"),
    ] {
        let problem = frame(bad).unwrap_err();
        assert!(problem.contains(expected), "{bad}: {problem}");
    }
}
