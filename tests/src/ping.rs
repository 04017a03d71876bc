//! `ping` and what it says of its losses.

use std::net::IpAddr;

use crate::command;
use crate::error::{Result, ensure};
use crate::namespace::Namespace;

/// Echo requests and their replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u64,
    /// Replies that came, with the very bytes that were sent.
    pub received: u64,
}

/// How to ping.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Requests.
    pub count: u32,
    /// Requests sent at once in the beginning; the others follow every 10 ms.
    pub burst: u32,
    /// Bytes of data in each.
    pub size: u32,
    /// Seconds to wait for the last reply.
    pub patience_s: f64,
}

impl Default for Manner {
    fn default() -> Self {
        Self { count: 20, burst: 1, size: 56, patience_s: 1.0 }
    }
}

/// Pings an address from inside a namespace; silence is no error.
pub fn ping(namespace: &Namespace, address: IpAddr, manner: Manner) -> Result<Pings> {
    let Manner { count, burst, size, patience_s } = manner;
    let mut command = namespace.command("ping");
    command.args(["-q", "-n", "-i", "0.01", "-c", &count.to_string(), "-l", &burst.to_string()]);
    command.args(["-s", &size.to_string(), "-W", &patience_s.to_string(), &address.to_string()]);
    let output = command::output(&mut command)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let damaged = said.contains("wrong data byte") || said.contains("DUP!") || said.contains("truncated");
    let pings = said.lines().find_map(summary).filter(|_| !damaged);
    ensure(pings.is_some(), || format!("`{}` says: {said}", command::line(&command)))?;
    Ok(pings.unwrap_or(Pings { sent: 0, received: 0 }))
}

/// Reads `20 packets transmitted, 19 received, 5% packet loss, time 190ms`.
fn summary(line: &str) -> Option<Pings> {
    let (sent, rest) = line.split_once(" packets transmitted, ")?;
    let (received, _) = rest.split_once(" received")?;
    Some(Pings { sent: sent.parse().ok()?, received: received.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_with_and_without_errors() {
        for (line, expected) in [
            ("20 packets transmitted, 19 received, 5% packet loss, time 190ms", Some((20, 19))),
            ("3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2ms", Some((3, 0))),
            ("rtt min/avg/max/mdev = 0.0/0.0/0.0/0.0 ms", None),
        ] {
            assert_eq!(summary(line).map(|pings| (pings.sent, pings.received)), expected, "{line}");
        }
    }
}
