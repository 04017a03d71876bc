//! Makes a network namespace a node that takes packets out of tunnels; see `shunt_tests::decapsulator`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shunt_tests::decapsulator::Decapsulator;
use shunt_tests::namespace::Namespace;

/// Does on an interface what tunl0, ip6tnl0 and sit0 do, for kernels without these devices: takes one IPv4 or IPv6 header
/// off packets that carry IPv4 or IPv6. It goes on until the pin is removed.
#[derive(Parser)]
struct Arguments {
    /// Network namespace, as in `ip netns`.
    namespace: String,
    /// Interface in it.
    interface: String,
    /// What keeps it there: a new file on a bpffs.
    #[arg(long)]
    pin: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { namespace, interface, pin } = Arguments::parse();
    let attached = Decapsulator::attach(&Namespace::existing(&namespace), &interface);
    match attached.and_then(|mut attached| attached.pin(&pin)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shunt-decapsulate: {error}");
            ExitCode::FAILURE
        }
    }
}
