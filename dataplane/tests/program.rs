//! The steering program and its loader on the running kernel, as root.
//!
//! `verdict` runs the compiled program over single frames, without a NIC. `lifecycle` attaches it to NICs, each
//! test in network and mount namespaces of its own (`sandbox`).

#[path = "program/lifecycle.rs"]
mod lifecycle;
#[path = "program/sandbox.rs"]
mod sandbox;
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
