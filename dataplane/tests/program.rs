//! The steering program, its loader and the AF_XDP port on the running kernel, as root.
//!
//! `verdict` and `tunnel_errors` run the compiled program over single frames, without a NIC, and `replay` holds its
//! twin in Rust to it. `lifecycle` attaches it to NICs, `port` moves frames through it, and
//! `probe` sends health checks through its sister; each test in network and mount
//! namespaces of its own (`sandbox`).

#[path = "program/lifecycle.rs"]
mod lifecycle;
#[path = "program/port.rs"]
mod port;
#[path = "program/probe.rs"]
mod probe;
#[path = "program/replay.rs"]
mod replay;
#[path = "program/sandbox.rs"]
mod sandbox;
#[path = "program/tunnel_errors.rs"]
mod tunnel_errors;
#[path = "program/verdict.rs"]
mod verdict;

/// False, said on stderr, when the tests here cannot run.
fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Unlike eprintln!, this is not captured by the test harness.
        let _ =
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {test} needs root\n"));
    }
    root
}
