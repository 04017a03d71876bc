//! Next hops through the kernel's VLAN devices.
//!
//! ```text
//!  balancer                                             backends
//!    v1.20     10.77.20.1/24  on v1, 802.1Q 20    ─────  p1.20  10.77.20.2, .254
//!    v1.40     10.77.40.1/24  on v1, 802.1ad 40   ─────  p1.40  10.77.40.2
//!    v1.20.30  10.77.30.1/24  on v1.20
//!    v3.20     10.77.23.1/24  on v3, not served
//! ```

use shunt_dataplane::packet::ethernet::VlanTag;

use super::*;

const TAGGED: &str = "10.77.20.2";
const PROVIDER: &str = "10.77.40.2";

const VLANS: &str = "
    link set v1.20 address 02:00:00:00:14:01 mtu 1496 up
    link add link v1 name v1.40 address 02:00:00:00:28:01 type vlan protocol 802.1ad id 40
    link add link v1.20 name v1.20.30 type vlan id 30
    link add link v3 name v3.20 type vlan id 20
    link set v1.40 up
    link set v1.20.30 up
    link set v3.20 up
    address add 10.77.20.1/24 dev v1.20
    address add 10.77.40.1/24 dev v1.40
    address add 10.77.30.1/24 dev v1.20.30
    address add 10.77.23.1/24 dev v3.20
    route add 192.0.2.0/24 via 10.77.20.254 mtu 1400
";
const BACKEND_VLANS: &str = "
    link add link p1 name p1.20 address 02:00:00:00:14:02 type vlan id 20
    link add link p1 name p1.40 address 02:00:00:00:28:02 type vlan protocol 802.1ad id 40
    link set p1.20 up
    link set p1.40 up
    address add 10.77.20.2/24 dev p1.20
    address add 10.77.20.254/24 dev p1.20
    address add 10.77.40.2/24 dev p1.40
";

/// Makes the first VLAN device; false, said on stderr, where the kernel has none.
fn kernel_has_vlans(balancer: &Namespace) -> bool {
    let Err(complaint) = balancer.try_ip("link add link v1 name v1.20 type vlan id 20") else { return true };
    let unknown = ["Unknown device type", "Operation not supported"];
    assert!(unknown.iter().any(|reason| complaint.contains(reason)), "ip: {complaint}");
    // Unlike eprintln!, this is not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "SKIPPED: this kernel has no 802.1Q (8021q)");
    false
}

/// The hop by the VLAN device with tag `id` on v1, to the backend whose MAC address ends in `last`.
fn over_vlan(lab: &Lab, tpid: u16, id: u8, last: u8, mtu: u32) -> Hop {
    Hop::Resolved(ResolvedHop {
        ifindex: lab.ifindex("v1"),
        vlan: Some(VlanTag { tpid, id: id.into() }),
        source_mac: mac(id, 1),
        destination_mac: mac(id, last),
        gateway: None,
        source_address: Some(IpAddr::from([10, 77, id, 1])),
        mtu,
    })
}

#[test]
fn a_route_by_a_vlan_device_leads_through_its_nic() {
    let mut lab = Lab::new(&[]);
    if !kernel_has_vlans(&lab.balancer) {
        return;
    }
    lab.backends.ip(BACKEND_VLANS);
    lab.balancer.ip(VLANS);
    lab.want(&[TAGGED, PROVIDER, FAR, "10.77.30.2", "10.77.23.2"]);
    let tagged = over_vlan(&lab, 0x8100, 20, 2, 1496);
    lab.until_hop(FIND, "802.1Q", TAGGED, &tagged);
    let provider = over_vlan(&lab, 0x88a8, 40, 2, 1500);
    lab.until_hop(FIND, "802.1ad", PROVIDER, &provider);
    let Hop::Resolved(hop) = tagged.clone() else { unreachable!() };
    let far = Hop::Resolved(ResolvedHop { gateway: Some(ip("10.77.20.254")), mtu: 1400, ..hop });
    lab.until_hop(FIND, "a gateway in the VLAN, with an MTU of its own", FAR, &far);
    lab.until_hop(SECOND, "a VLAN on a VLAN", "10.77.30.2", &elsewhere("v1.20.30"));
    lab.until_hop(SECOND, "a VLAN on a NIC not served", "10.77.23.2", &elsewhere("v3.20"));

    lab.backends.sysctl("ipv4/conf/p1.20/arp_notify", "1");
    lab.backends.ip("link set p1.20 address 02:00:00:00:14:03");
    let moved = over_vlan(&lab, 0x8100, 20, 3, 1496);
    lab.until_hop(FIND, "the backend announces a new MAC address", TAGGED, &moved);
    lab.balancer.ip("link set v1.20 mtu 1450");
    lab.until_hop(SECOND, "the VLAN's MTU shrinks", TAGGED, &over_vlan(&lab, 0x8100, 20, 3, 1450));
}

#[test]
fn a_vlan_device_or_its_nic_goes_down_and_comes_back() {
    let mut lab = Lab::new(&[TAGGED]);
    if !kernel_has_vlans(&lab.balancer) {
        return;
    }
    lab.backends.ip(BACKEND_VLANS);
    lab.balancer.ip(VLANS);
    let tagged = over_vlan(&lab, 0x8100, 20, 2, 1496);
    lab.until_hop(FIND, "resolves", TAGGED, &tagged);
    for (near, link) in [(false, "p1"), (true, "v1"), (true, "v1.20")] {
        let set = |lab: &Lab, state: &str| {
            let namespace = if near { &lab.balancer } else { &lab.backends };
            namespace.ip(&format!("link set {link} {state}"));
        };
        set(&lab, "down");
        lab.until_hop(3 * SECOND, &format!("{link} goes down"), TAGGED, &Hop::NoRoute);
        set(&lab, "up");
        lab.until_hop(6 * SECOND, &format!("{link} comes up"), TAGGED, &tagged);
    }
    lab.balancer.ip("link delete v1.20");
    lab.until_hop(SECOND, "the VLAN device is removed", TAGGED, &Hop::NoRoute);
    lab.want(&[PROVIDER]);
    let provider = over_vlan(&lab, 0x88a8, 40, 2, 1500);
    lab.until_hop(FIND, "the other VLAN resolves", PROVIDER, &provider);
    lab.balancer.ip("link delete v1");
    lab.until_hop(SECOND, "the NIC is removed", PROVIDER, &Hop::NoRoute);
}
