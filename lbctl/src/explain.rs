//! `lbctl explain`: what becomes of a packet, and why.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use shunt_api::client::Client;
use shunt_api::config::read_text;
use shunt_api::explain::{ExplainRequest, Explanation, PacketQuestion, SupposedFile, Verdict};
use shunt_api::snapshot::Protocol;

use crate::Outcome;
use crate::flows::protocol;
use crate::output::{self, Align, Columns, Format};

/// A supposed configuration is compiled before the answer.
const TIMEOUT: Duration = Duration::from_secs(35);
/// Bytes of a packet that carries next to nothing.
const LENGTH: u16 = 60;

/// A packet.
#[derive(Args)]
pub struct Options {
    /// Where it comes from: address and port of the client. IPv6 addresses stand in brackets: [2001:db8::7]:40000.
    #[arg(long, value_name = "ADDRESS:PORT")]
    src: SocketAddr,
    /// Where it goes: VIP and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    dst: SocketAddr,
    /// TCP or UDP.
    #[arg(long, value_name = "tcp|udp", default_value = "tcp", value_parser = protocol)]
    proto: Protocol,
    /// Of TCP: a packet in the middle of a connection, instead of the SYN that begins one.
    #[arg(long)]
    midstream: bool,
    /// Bytes of the IP packet, which no router may fragment (DF).
    #[arg(long, value_name = "BYTES", default_value_t = LENGTH, value_parser = clap::value_parser!(u16).range(28..))]
    length: u16,
    /// Suppose this configuration file in place of the one in force; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Suppose that this backend, by name or address, is down. May be given more than once.
    #[arg(long, value_name = "BACKEND")]
    down: Vec<String>,
}

/// Prints what becomes of the packet. Exit code 0 if it goes on, 1 if not.
pub async fn run(options: Options, control: Client, format: Format) -> anyhow::Result<Outcome> {
    let config = options.config.as_deref().map(supposed).transpose()?;
    let packet = PacketQuestion {
        source: options.src,
        destination: options.dst,
        protocol: options.proto,
        begins: !options.midstream,
        length: options.length,
    };
    let request = ExplainRequest { packet, config, down: options.down };
    let explanation: Explanation = control.with_timeout(TIMEOUT).post("/v1/explain", &request).await?;
    match format {
        Format::Json => output::print_json(&explanation)?,
        Format::Table => output::print(&text(&explanation))?,
    }
    let goes_on = matches!(explanation.verdict, Verdict::Forward | Verdict::Translate | Verdict::Return);
    Ok(Outcome::well_if(goes_on))
}

fn supposed(path: &Path) -> anyhow::Result<SupposedFile> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(SupposedFile { file: "standard input".to_owned(), text });
    }
    Ok(SupposedFile { file: path.display().to_string(), text: read_text(path)? })
}

/// The verdict, and each rule with what it says; `*` marks what decided.
fn text(explanation: &Explanation) -> String {
    let mut columns = Columns::new(&[("", Align::Left), ("RULE", Align::Left), ("FINDING", Align::Left)]);
    columns.wrap_last();
    for step in &explanation.steps {
        let mark = if step.decides { "*" } else { "" };
        columns.row(vec![mark.to_owned(), step.rule.name().to_owned(), step.finding.clone()]);
    }
    format!("{}\n\n{}", headline(explanation), columns.text())
}

fn headline(explanation: &Explanation) -> String {
    let PacketQuestion { source, destination, protocol, .. } = explanation.packet;
    let to = explanation.backend.map_or_else(String::new, |backend| format!(" to {backend}"));
    let what = match explanation.verdict {
        Verdict::Forward => format!("is forwarded{to}"),
        Verdict::Translate => format!("is translated and forwarded{to}"),
        Verdict::Return => "is translated back and returned to its client".to_owned(),
        Verdict::Reply => "is not forwarded: its sender is answered".to_owned(),
        Verdict::Drop => "is dropped".to_owned(),
        Verdict::Pass => "is left to this host".to_owned(),
    };
    let why = explanation.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let would = if explanation.supposed { "As supposed: " } else { "" };
    format!("{would}{protocol} {source} -> {destination} {what}{why}")
}
