//! `lbctl flows`: the dataplane's flow table, filtered by the dataplane itself.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use clap::Args;
use shunt_api::client::Client;
use shunt_api::snapshot::Protocol;
use shunt_api::status::{FlowFilter, FlowView, Flows};

use crate::Outcome;
use crate::output::{self, Align, Columns, Format};

/// Which flows to list; without a filter, all of them up to the limit.
#[derive(Args)]
pub struct Filter {
    /// Only flows of this client address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Only flows to this VIP.
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<IpAddr>,
    /// Only flows to this service port.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only flows of this protocol.
    #[arg(long, value_name = "tcp|udp", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// Only flows that this backend address serves.
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,
    /// Most flows to list; 1000 unless given.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

/// `tcp` or `udp`.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("write tcp or udp".to_owned()),
    }
}

/// Lists flows.
pub async fn run(filter: Filter, dataplane: &Client, format: Format) -> anyhow::Result<Outcome> {
    let Filter { client, vip, port, protocol, backend, limit } = filter;
    let filter = FlowFilter { client, vip, port, protocol, backend, limit };
    let flows: Flows = dataplane.get(&request_path(&filter)).await?;
    match format {
        Format::Json => output::print_json(&flows)?,
        Format::Table => output::print(&table(&flows))?,
    }
    if flows.truncated && format == Format::Table {
        eprintln!(
            "lbctl: only the first {} are listed; narrow the filter or raise --limit",
            flows.flows.len()
        );
    }
    Ok(Outcome::Well)
}

/// Addresses and numbers need no escaping in a query string.
fn request_path(filter: &FlowFilter) -> String {
    fn field(name: &str, value: Option<impl Display>) -> Option<String> {
        value.map(|value| format!("{name}={value}"))
    }
    let fields = [
        field("client", filter.client),
        field("vip", filter.vip),
        field("port", filter.port),
        field("protocol", filter.protocol),
        field("backend", filter.backend),
        field("limit", filter.limit),
    ];
    let query: Vec<String> = fields.into_iter().flatten().collect();
    if query.is_empty() { "/v1/flows".to_owned() } else { format!("/v1/flows?{}", query.join("&")) }
}

fn table(flows: &Flows) -> String {
    let mut columns = Columns::new(&[
        ("PROTO", Align::Left),
        ("CLIENT", Align::Left),
        ("VIP", Align::Left),
        ("BACKEND", Align::Left),
        ("STATE", Align::Left),
        ("IDLE", Align::Right),
        ("EXPIRES", Align::Right),
    ]);
    flows.flows.iter().for_each(|flow| columns.row(row(flow)));
    columns.text()
}

fn row(flow: &FlowView) -> Vec<String> {
    vec![
        flow.port.protocol.to_string(),
        SocketAddr::new(flow.client, flow.client_port).to_string(),
        SocketAddr::new(flow.vip, flow.port.port).to_string(),
        backend(flow),
        flow.state.clone(),
        output::duration(flow.idle_s.into()),
        output::duration(flow.expires_s.into()),
    ]
}

fn backend(flow: &FlowView) -> String {
    let address = flow.backend.map_or_else(|| "(gone)".to_owned(), |backend| backend.to_string());
    flow.source.map_or_else(|| address.clone(), |source| format!("{address} from {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_becomes_the_query_string_of_the_api() {
        let nothing = FlowFilter::default();
        assert_eq!(request_path(&nothing), "/v1/flows");
        let all = FlowFilter {
            client: Some("2001:db8::7".parse().unwrap()),
            vip: Some("203.0.113.10".parse().unwrap()),
            port: Some(443),
            protocol: Some(Protocol::Udp),
            backend: Some("10.0.1.11".parse().unwrap()),
            limit: Some(5),
        };
        let path =
            "/v1/flows?client=2001:db8::7&vip=203.0.113.10&port=443&protocol=udp&backend=10.0.1.11&limit=5";
        assert_eq!(request_path(&all), path);
    }
}
