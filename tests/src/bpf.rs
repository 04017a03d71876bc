//! What all BPF programs of the networks need: attaching one inside a namespace, and reading its maps.

use libbpf_rs::{Link, Map, MapCore, Object, ProgramMut};
use rustix::net::netdevice::name_to_index;

use crate::error::{Error, Result, While};
use crate::namespace::Namespace;

/// The only program of an object file.
pub fn program(object: &Object) -> Result<ProgramMut<'_>> {
    object.progs_mut().next().ok_or_else(|| Error::Wrong("the object file holds no program".to_owned()))
}

/// A map of a program by its name.
pub fn map<'o>(object: &'o Object, name: &str) -> Result<Map<'o>> {
    let found = object.maps().find(|map| map.name() == name);
    found.ok_or_else(|| Error::Wrong(format!("the program holds no map {name}")))
}

/// The value of a counter.
pub fn number(value: Vec<u8>) -> u64 {
    value.try_into().map_or(0, u64::from_ne_bytes)
}

/// Attaches the only program of an object file to an interface of the namespace, until the result is dropped.
pub fn attach_xdp(namespace: &Namespace, interface: &str, object: &Object) -> Result<Link> {
    let what = || format!("attach an XDP program to {interface} of {}", namespace.name());
    let index = interface_index(namespace, interface)?;
    // An interface index means what it means in the namespace of the thread that attaches.
    namespace.inside(|| program(object)?.attach_xdp(index.cast_signed()).to(what))?
}

/// Kernel index of an interface inside the namespace.
pub fn interface_index(namespace: &Namespace, interface: &str) -> Result<u32> {
    let what = || format!("find {interface} in {}", namespace.name());
    namespace.inside(|| {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                .to(what)?;
        name_to_index(&socket, interface).to(what)
    })?
}
