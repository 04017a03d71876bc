//! Attaching, taking over, replacing and removing, on veth and loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ObjectBuilder, Xdp, XdpFlags};
use rustix::net::{AddressFamily, SocketType, netdevice};
use shunt_api::snapshot::XdpMode;
use shunt_dataplane::program::{Attached, AttachedMode, ProgramError, Steering, detach_leftovers};

use super::sandbox::{
    OWNED, add_veth, attach_and_crash, owned_is_kept_from_the_host, program_on, run, sandboxed, send,
    wait_until,
};

const NEW_NATIVE: Attached = Attached { mode: AttachedMode::Native, took_over: false };
const NEW_GENERIC: Attached = Attached { mode: AttachedMode::Generic, took_over: false };
const SAME_NATIVE: Attached = Attached { mode: AttachedMode::Native, took_over: true };
const SAME_GENERIC: Attached = Attached { mode: AttachedMode::Generic, took_over: true };

fn addresses(list: &[(&str, u32)]) -> BTreeMap<IpAddr, u32> {
    list.iter().map(|(address, headroom)| (address.parse().unwrap(), *headroom)).collect()
}

fn networks(list: &[&str]) -> BTreeSet<IpNet> {
    list.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

fn loaded(directory: &Path, nic: &str) -> Steering {
    let mut steering = Steering::open(directory).unwrap();
    steering.load(nic).unwrap();
    steering
}

/// What is said of removing the program of `v0` and the maps.
const REMOVED: [&str; 3] =
    ["XDP program of v0", "map of owned addresses owned_v1", "map of tunnel sources tunnel_sources_v1"];

/// What a pinned map holds.
fn content(pin: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let pinned = MapHandle::from_pinned_path(pin).unwrap();
    pinned.keys().map(|key| (key.clone(), pinned.lookup(&key, MapFlags::ANY).unwrap().unwrap())).collect()
}

/// Attaches as a process that then ends without detaching.
fn attach_and_leave(directory: &Path, nic: &str, mode: XdpMode) -> Attached {
    loaded(directory, nic).attach(nic, mode).unwrap()
}

fn assert_nothing_left(directory: &Path, nics: &[&str]) {
    assert!(!directory.exists());
    for nic in nics {
        assert_eq!(program_on(nic), None, "{nic}");
    }
}

#[test]
fn steers_in_the_driver_and_leaves_nothing() {
    sandboxed("lifecycle::steers_in_the_driver_and_leaves_nothing", |directory| {
        add_veth();
        let mut steering = loaded(directory, "v0");
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        steering.own(&addresses(&[(OWNED, 20)])).unwrap();
        assert_eq!(steering.attach("v0", XdpMode::Native).unwrap(), NEW_NATIVE);

        assert!(owned_is_kept_from_the_host());
        let counters = steering.counters("v0").unwrap();
        assert_eq!((counters.dropped_no_socket, counters.redirected), (1, 0));
        assert!(counters.passed >= 1);

        let socket = rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
        steering.insert_socket("v0", 0, socket.as_fd()).unwrap();
        send(OWNED, b"hello");
        wait_until("the packet is redirected", || steering.counters("v0").unwrap().redirected == 1);
        let beyond = steering.insert_socket("v0", 256, socket.as_fd()).unwrap_err().to_string();
        assert!(beyond.contains("queue 256 of v0"), "{beyond}");

        assert_eq!(steering.detach().unwrap(), REMOVED);
        assert_nothing_left(directory, &["v0"]);
        assert!(!owned_is_kept_from_the_host());
    });
}

#[test]
fn mode_is_as_asked_and_as_the_driver_can() {
    sandboxed("lifecycle::mode_is_as_asked_and_as_the_driver_can", |directory| {
        let refused = loaded(directory, "lo").attach("lo", XdpMode::Native).unwrap_err();
        assert!(matches!(refused, ProgramError::NoNativeMode { .. }), "{refused}");
        assert_eq!(attach_and_leave(directory, "lo", XdpMode::Auto), NEW_GENERIC);
        assert_eq!(attach_and_leave(directory, "lo", XdpMode::Auto), SAME_GENERIC);

        add_veth();
        for (wanted, expected) in [
            (XdpMode::Generic, NEW_GENERIC),
            (XdpMode::Generic, SAME_GENERIC),
            (XdpMode::Auto, NEW_NATIVE), // the driver can do better than what was left
            (XdpMode::Auto, SAME_NATIVE),
            (XdpMode::Generic, NEW_GENERIC),
            (XdpMode::Native, NEW_NATIVE),
            (XdpMode::Native, SAME_NATIVE),
        ] {
            assert_eq!(attach_and_leave(directory, "v0", wanted), expected, "{wanted:?}");
        }
        detach_leftovers(directory).unwrap();
        assert_nothing_left(directory, &["lo", "v0"]);
    });
}

#[test]
fn after_a_crash_addresses_stay_owned_and_the_program_is_replaced_in_place() {
    let name = "lifecycle::after_a_crash_addresses_stay_owned_and_the_program_is_replaced_in_place";
    sandboxed(name, |directory| {
        add_veth();
        attach_and_crash(directory, "v0", "native");
        let before = program_on("v0").expect("the program stays");
        assert!(owned_is_kept_from_the_host());

        let mut steering = loaded(directory, "v0");
        assert_eq!(program_on("v0"), Some(before), "nothing changes before attach");
        assert!(owned_is_kept_from_the_host());
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), SAME_NATIVE);
        assert_ne!(program_on("v0").unwrap(), before);
        assert!(owned_is_kept_from_the_host());
        assert_eq!(steering.counters("v0").unwrap().dropped_no_socket, 1);
        steering.detach().unwrap();
        assert_nothing_left(directory, &["v0"]);
    });
}

#[test]
fn leftovers_of_a_crash_can_be_removed() {
    sandboxed("lifecycle::leftovers_of_a_crash_can_be_removed", |directory| {
        add_veth();
        attach_and_crash(directory, "v0", "generic");
        assert_eq!(detach_leftovers(directory).unwrap(), REMOVED);
        assert_nothing_left(directory, &["v0"]);
        assert!(detach_leftovers(directory).unwrap().is_empty(), "nothing more to remove");
    });
}

#[test]
fn one_process_at_a_time() {
    sandboxed("lifecycle::one_process_at_a_time", |directory| {
        let first = Steering::open(directory).unwrap();
        let second = Steering::open(directory).unwrap_err();
        assert!(matches!(second, ProgramError::InUse { .. }), "{second}");
        let detach = detach_leftovers(directory).unwrap_err();
        assert!(matches!(detach, ProgramError::InUse { .. }), "{detach}");
        drop(first);
        Steering::open(directory).unwrap();
    });
}

#[test]
fn the_program_of_somebody_else_is_named_with_the_way_to_remove_it() {
    let name = "lifecycle::the_program_of_somebody_else_is_named_with_the_way_to_remove_it";
    sandboxed(name, |directory| {
        add_veth();
        let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));
        let foreign = ObjectBuilder::default().open_memory(bytes).unwrap().load().unwrap();
        let foreign = foreign.progs_mut().next().unwrap();
        let any = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        let nic = i32::try_from(netdevice::name_to_index(&any, "v0").unwrap()).unwrap();
        let mut steering = loaded(directory, "v0");

        for (flags, wanted) in [
            (XdpFlags::DRV_MODE, XdpMode::Auto),
            (XdpFlags::SKB_MODE, XdpMode::Generic),
            (XdpFlags::SKB_MODE, XdpMode::Auto),
            (XdpFlags::DRV_MODE, XdpMode::Generic),
        ] {
            Xdp::new(foreign.as_fd()).attach(nic, flags).unwrap();
            let id = program_on("v0").unwrap();
            let ProgramError::Busy { program, remedy, .. } = steering.attach("v0", wanted).unwrap_err()
            else {
                panic!("the NIC is busy")
            };
            assert_eq!(program, format!("\"steer\" (id {id})"));
            run(&remedy);
            assert_eq!(program_on("v0"), None, "{remedy}");
        }

        let link = foreign.attach_xdp(nic).unwrap();
        let error = steering.attach("v0", XdpMode::Auto).unwrap_err().to_string();
        assert!(error.contains("bpftool link detach id "), "{error}");
        drop(link);
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), NEW_NATIVE);
    });
}

#[test]
fn the_map_holds_exactly_what_is_owned() {
    sandboxed("lifecycle::the_map_holds_exactly_what_is_owned", |directory| {
        let mut steering = Steering::open(directory).unwrap();
        let content = || content(&directory.join("owned_v1"));
        let v4 = |last| [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, last]].concat();
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1]].concat();
        let bytes = |headroom: u32| headroom.to_ne_bytes().to_vec();

        steering.own(&addresses(&[("192.0.2.1", 0), ("192.0.2.2", 20)])).unwrap();
        assert_eq!(content(), [(v4(1), bytes(0)), (v4(2), bytes(20))].into());
        steering.own(&addresses(&[("192.0.2.1", 40), ("2001:db8::1", 0)])).unwrap();
        assert_eq!(content(), [(v4(1), bytes(40)), (v6.clone(), bytes(0))].into());

        let too_many = (0..=65536_u32).map(|number| (IpAddr::from(number.to_be_bytes()), 0)).collect();
        let error = steering.own(&too_many).unwrap_err();
        assert!(matches!(error, ProgramError::TooManyAddresses { wanted: 65537, room: 65536 }), "{error}");
        assert_eq!(content(), [(v4(1), bytes(40)), (v6, bytes(0))].into());

        steering.own(&BTreeMap::new()).unwrap();
        assert_eq!(content(), BTreeMap::new());
    });
}

#[test]
fn the_map_holds_exactly_the_tunnel_sources() {
    sandboxed("lifecycle::the_map_holds_exactly_the_tunnel_sources", |directory| {
        let mut steering = Steering::open(directory).unwrap();
        let content =
            || -> Vec<Vec<u8>> { content(&directory.join("tunnel_sources_v1")).into_keys().collect() };
        let key = |bits: u32, address: IpAddr| {
            let address = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            [&bits.to_ne_bytes()[..], &address.octets()].concat()
        };
        let ten = key(104, "10.0.0.0".parse().unwrap());
        let within_ten = key(112, "10.200.0.0".parse().unwrap());
        let v6 = key(64, "fd00:200::".parse().unwrap());
        let host = key(128, "192.0.2.1".parse().unwrap());

        for (prefixes, expected) in [
            (vec!["10.0.0.0/8"], vec![&ten]),
            (vec!["10.0.0.0/8", "10.200.0.0/16", "fd00:200::/64"], vec![&v6, &ten, &within_ten]),
            (vec!["10.200.0.0/16", "fd00:200::/64", "192.0.2.1/32"], vec![&v6, &within_ten, &host]),
            (vec!["10.0.0.0/8", "10.200.3.4/16", "10.200.5.6/16"], vec![&ten, &within_ten]),
            (vec!["10.0.0.0/8"], vec![&ten]),
        ] {
            steering.tunnel_sources(&networks(&prefixes)).unwrap();
            assert_eq!(content(), expected.into_iter().cloned().collect::<Vec<_>>(), "{prefixes:?}");
        }

        let hosts = |count: u32| -> BTreeSet<IpNet> {
            (0..count).map(|number| IpNet::from(IpAddr::from(number.to_be_bytes()))).collect()
        };
        let error = steering.tunnel_sources(&hosts(4097)).unwrap_err();
        assert!(matches!(error, ProgramError::TooManyTunnelSources { wanted: 4097, room: 4096 }), "{error}");
        assert_eq!(content(), [ten], "nothing has changed");
        steering.tunnel_sources(&BTreeSet::new()).unwrap();
        steering.tunnel_sources(&hosts(4096)).unwrap();
        assert_eq!(content().len(), 4096);
        steering.tunnel_sources(&BTreeSet::new()).unwrap();
        assert!(content().is_empty());
    });
}

#[test]
fn the_pins_of_a_version_without_tunnel_sources_are_taken_over() {
    let name = "lifecycle::the_pins_of_a_version_without_tunnel_sources_are_taken_over";
    sandboxed(name, |directory| {
        add_veth();
        attach_and_crash(directory, "v0", "native");
        let pin = directory.join("tunnel_sources_v1");
        std::fs::remove_file(&pin).unwrap();
        let owned = content(&directory.join("owned_v1"));

        let mut steering = loaded(directory, "v0");
        steering.tunnel_sources(&networks(&["10.200.0.0/16"])).unwrap();
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), SAME_NATIVE);
        assert!(owned_is_kept_from_the_host());
        drop(steering);
        assert_eq!(content(&directory.join("owned_v1")), owned);
        assert_eq!(content(&pin).len(), 1, "for the next process");
        assert_eq!(attach_and_leave(directory, "v0", XdpMode::Auto), SAME_NATIVE);
        assert_eq!(content(&pin).len(), 1);
        assert_eq!(detach_leftovers(directory).unwrap(), REMOVED);
        assert_nothing_left(directory, &["v0"]);
    });
}

#[test]
fn a_map_of_another_layout_is_refused_until_removed() {
    sandboxed("lifecycle::a_map_of_another_layout_is_refused_until_removed", |directory| {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        };
        for (pin, said) in [
            ("owned_v1", "map of owned addresses owned_v1"),
            ("tunnel_sources_v1", "map of tunnel sources tunnel_sources_v1"),
        ] {
            detach_leftovers(directory).unwrap();
            std::fs::create_dir(directory).unwrap();
            let mut other = MapHandle::create(MapType::Hash, Some("other"), 4, 4, 65536, &options).unwrap();
            other.pin(directory.join(pin)).unwrap();
            let error = Steering::open(directory).unwrap_err();
            assert!(matches!(error, ProgramError::OtherLayout { .. }), "{error}");
            assert!(error.to_string().contains("shunt-dataplane detach"), "{error}");
            let removed = detach_leftovers(directory).unwrap();
            assert!(removed.iter().any(|removed| removed == said), "{removed:?}");
            Steering::open(directory).unwrap();
        }
    });
}

#[test]
fn a_nic_that_came_back_is_attached_anew() {
    sandboxed("lifecycle::a_nic_that_came_back_is_attached_anew", |directory| {
        add_veth();
        let mut steering = loaded(directory, "v0");
        steering.own(&addresses(&[(OWNED, 0)])).unwrap();
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), NEW_NATIVE);
        run("ip link del v0");
        for gone in [steering.attach("v0", XdpMode::Auto).unwrap_err(), steering.load("v0").unwrap_err()] {
            assert!(matches!(gone, ProgramError::NoSuchNic { .. }), "{gone}");
        }
        add_veth();
        steering.load("v0").unwrap();
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), NEW_NATIVE);
        assert!(owned_is_kept_from_the_host());
        drop(steering);

        run("ip link del v0");
        add_veth();
        assert_eq!(attach_and_leave(directory, "v0", XdpMode::Auto), NEW_NATIVE, "in the next process");

        run("ip link set v0 down && ip link set v0 name w0 && ip link set v1 down && ip link set v1 name w1");
        add_veth();
        assert_eq!(
            attach_and_leave(directory, "v0", XdpMode::Auto),
            NEW_NATIVE,
            "another NIC has the name now"
        );
        assert_eq!(program_on("w0"), None);
        assert!(owned_is_kept_from_the_host());

        run("ip link del v0");
        assert_eq!(detach_leftovers(directory).unwrap(), REMOVED, "also of a NIC that is gone");
        assert!(!directory.exists());
    });
}

#[test]
fn nics_no_longer_served_are_let_go() {
    sandboxed("lifecycle::nics_no_longer_served_are_let_go", |directory| {
        add_veth();
        run("ip link set v1 down && ip link set v1 name v0.7");
        attach_and_leave(directory, "v0", XdpMode::Auto);
        attach_and_leave(directory, "v0.7", XdpMode::Auto);
        let mut steering = loaded(directory, "v0");
        assert_eq!(steering.detach_others().unwrap(), ["v0.7"]);
        assert_eq!(program_on("v0.7"), None);
        assert!(program_on("v0").is_some());
        assert_eq!(steering.attach("v0", XdpMode::Auto).unwrap(), SAME_NATIVE);
        drop(steering);

        run("ip link set v0 down && ip link set v0 name w0");
        let mut steering = loaded(directory, "w0");
        let busy = steering.attach("w0", XdpMode::Auto).unwrap_err();
        assert!(matches!(busy, ProgramError::Busy { .. }), "{busy}");
        assert_eq!(steering.detach_others().unwrap(), ["v0"], "its former name");
        assert_eq!(steering.attach("w0", XdpMode::Auto).unwrap(), NEW_NATIVE);
        steering.detach().unwrap();
        assert_nothing_left(directory, &["w0", "v0.7"]);
    });
}
