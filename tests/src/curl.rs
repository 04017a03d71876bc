//! Many requests by one curl process, each on a new connection, each with what both ends saw of it.
//!
//! Every request has its own client port, so that the same scenario makes the same flows on every run and
//! its shares do not depend on luck.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result, ensure};
use crate::process::Process;
use crate::shunt::PATIENCE;
use crate::topology::Topology;

/// What curl prints for every request, and [`Reply::parse`] reads.
const FORMAT: &str = "reply %{urlnum} %{http_code} %{exitcode} %{num_connects} %{local_ip} %{local_port} \
                      %header{x-client} %header{x-backend}\\n";

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to ask for.
    pub url: String,
    /// Client address and port to ask from.
    pub from: SocketAddr,
    /// Where the answer's body goes.
    pub output: PathBuf,
}

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Requests at a time.
    pub parallel: usize,
    /// Bytes a second that each takes.
    pub rate: Option<u64>,
    /// Longest time for one request.
    pub limit: Duration,
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status, 0 without an answer.
    pub status: u16,
    /// curl's exit code for this request; 0 is success.
    pub exit: u32,
    /// Connections made for it.
    pub connections: u32,
    /// The client's end as the client knows it.
    pub local: Option<SocketAddr>,
    /// The client's end as the server saw it.
    pub seen: Option<SocketAddr>,
    /// Who answered; empty without an answer.
    pub backend: String,
}

/// Requests on their way.
pub struct Curl {
    process: Process,
    requests: usize,
    limit: Duration,
}

/// `count` requests for `/` of one VIP, from the client's addresses by turns and from this port on.
pub fn requests(topology: &Topology, vip: IpAddr, count: u16, first_port: u16) -> Vec<Request> {
    let sources = topology.client_addresses(vip).into_iter().cycle();
    let ports = first_port..first_port.saturating_add(count);
    let request = |(source, port)| Request {
        url: format!("http://{}/", SocketAddr::new(vip, 80)),
        from: SocketAddr::new(source, port),
        output: "/dev/null".into(),
    };
    sources.zip(ports).map(request).collect()
}

impl Default for Manner {
    fn default() -> Self {
        Self { parallel: 20, rate: None, limit: Duration::from_secs(20) }
    }
}

impl Reply {
    /// Answered, and the server saw the client's own address and port.
    pub fn is_good(&self) -> bool {
        self.exit == 0 && self.status == 200 && self.connections == 1 && self.is_faithful()
    }

    /// The server saw the client's own address and port.
    pub fn is_faithful(&self) -> bool {
        self.local.is_some() && self.local == self.seen
    }

    /// Reads a line of [`FORMAT`]; a request without an answer lacks the last three words.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("reply ")?.split(' ').skip(1);
        let mut word = || words.next().unwrap_or_default();
        let (status, exit, connections) = (word().parse().ok()?, word().parse().ok()?, word().parse().ok()?);
        let mut address = || {
            let (ip, port) = (word(), word());
            Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
        };
        let (local, seen) = (address(), address());
        Some(Self { status, exit, connections, local, seen, backend: word().to_owned() })
    }
}

impl Curl {
    /// Starts the requests from the topology's client.
    pub fn start(topology: &Topology, name: &str, requests: &[Request], manner: &Manner) -> Result<Self> {
        let file = topology.run.write(&format!("{name}.curlrc"), config(requests, manner))?;
        let mut arguments =
            ["--disable", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max"]
                .map(str::to_owned)
                .to_vec();
        arguments.extend([manner.parallel.to_string(), "--config".to_owned(), file.display().to_string()]);
        let process = Process::start(&topology.run, &topology.client, name, Path::new("curl"), &arguments)?;
        let rounds = requests.len().div_ceil(manner.parallel).max(1);
        // Should every request take all its time, the whole may take this long, and curl's own start.
        let limit = manner.limit * u32::try_from(rounds).unwrap_or(u32::MAX).min(10) + PATIENCE;
        Ok(Self { process, requests: requests.len(), limit })
    }

    /// Whether requests are still under way.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// How many replies there are so far.
    pub fn replied(&self) -> usize {
        self.process.output().lines().count()
    }

    /// Replies so far.
    pub fn replies(&self) -> Vec<Reply> {
        self.process.output().lines().filter_map(Reply::parse).collect()
    }

    /// Waits for all replies.
    pub fn finish(mut self) -> Result<Vec<Reply>> {
        // Its exit code is the one of some failed request, which the replies tell in detail.
        let ended = self.process.wait(self.limit);
        if let Err(Error::Timeout { .. }) = ended {
            self.process.signal(Signal::KILL);
        }
        ended?;
        let replies = self.replies();
        ensure(replies.len() == self.requests, || {
            let log = self.process.log();
            let complaints: Vec<_> = log.lines().take(5).collect();
            format!(
                "curl reported {} of {} requests: {}",
                replies.len(),
                self.requests,
                complaints.join("; ")
            )
        })?;
        Ok(replies)
    }
}

fn config(requests: &[Request], manner: &Manner) -> String {
    let mut text = String::new();
    for (index, Request { url, from, output }) in requests.iter().enumerate() {
        if index > 0 {
            text.push_str("next\n");
        }
        let _ = writeln!(text, "url = \"{url}\"\noutput = \"{}\"", output.display());
        let _ = writeln!(text, "interface = \"host!{}\"\nlocal-port = \"{}\"", from.ip(), from.port());
        // Asks the server to close, so that no request finds a connection to reuse.
        let _ = writeln!(text, "header = \"Connection: close\"\nwrite-out = \"{FORMAT}\"\ngloboff");
        let _ = writeln!(text, "connect-timeout = 10\nmax-time = {}", manner.limit.as_secs_f32());
        if let Some(rate) = manner.rate {
            let _ = writeln!(text, "limit-rate = {rate}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_with_and_without_an_answer() {
        let good = "reply 0 200 0 1 10.77.1.10 10000 10.77.1.10 10000 dr1";
        let reply = Reply::parse(good).unwrap();
        assert!(reply.is_good());
        assert_eq!(reply.backend, "dr1");
        let v6 = "reply 0 200 0 1 fd77:1::10 9 fd77:1::99 9 far1";
        assert!(!Reply::parse(v6).unwrap().is_faithful());
        let timed_out = "reply 7 000 28 0   ";
        let reply = Reply::parse(timed_out).unwrap();
        assert_eq!((reply.status, reply.exit, reply.local, reply.seen), (0, 28, None, None));
        assert_eq!(Reply::parse("curl: (28) timed out"), None);
    }
}
