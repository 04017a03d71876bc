//! What the control thread hands out for an answer, which is found elsewhere: a supposed snapshot takes time to compile.

use std::sync::Arc;

use shunt_api::explain::{Asked, Explanation};
use shunt_api::snapshot::{Nat, Snapshot};

use super::Grounds;
use crate::conntrack::Seconds;
use crate::forward::FlowTables;
use crate::neighbor::{HopMap, LinkMap};
use crate::path_mtu::PathMtus;
use crate::table::{Compiler, Forwarding};
use crate::ways::Ways;

/// The dataplane at one moment.
pub struct Source {
    /// In force.
    pub forwarding: Arc<Forwarding>,
    /// What is remembered of flows.
    pub flows: Arc<FlowTables>,
    /// A copy, to suppose something: it knows backends by the same identities as the entries of the flow table.
    pub compiler: Option<Compiler>,
    /// The ways to backends.
    pub hops: Arc<HopMap>,
    /// All links.
    pub links: Arc<LinkMap>,
    /// Names and kernel indices of the NICs served.
    pub nics: Vec<(String, u32)>,
    /// Learned from ICMP messages.
    pub path_mtus: PathMtus,
    /// What the sockets can carry, if that is limited.
    pub mtu_limit: Option<u32>,
    /// Now.
    pub now: Seconds,
}

impl Source {
    /// Answers. The error says what is wrong with the question or with what is supposed.
    pub fn answer(&self, asked: &Asked) -> Result<Explanation, String> {
        let supposed = asked.snapshot.as_deref().map(|snapshot| self.suppose(snapshot)).transpose()?;
        let names: Vec<String> = self.nics.iter().map(|(name, _)| name.clone()).collect();
        let grounds = Grounds {
            forwarding: supposed.as_ref().unwrap_or(&self.forwarding),
            flows: &self.flows,
            hops: &self.hops,
            nics: &names,
            now: self.now,
        };
        let told = super::explain(&asked.packet, &grounds)?;
        Ok(Explanation { supposed: supposed.is_some(), ..told })
    }

    /// What the workers would see, if they obeyed this. The way to a backend that is new is not known.
    fn suppose(&self, snapshot: &Snapshot) -> Result<Forwarding, String> {
        let mut compiler = self.compiler.clone().unwrap_or_default();
        // Tables of other sizes would have to be allocated, and be empty.
        let (max_flows_v4, max_flows_v6) = compiler.nat_sizes().unwrap_or((1, 1));
        let nat = Nat { max_flows_v4, max_flows_v6, ..snapshot.nat.clone() };
        let snapshot = Snapshot { nat, ..snapshot.clone() };
        let table = Arc::new(compiler.compile(&snapshot).map_err(|error| error.to_string())?);
        let ifindexes: Vec<u32> = self.nics.iter().map(|(_, ifindex)| *ifindex).collect();
        let ways = Ways {
            hops: &self.hops,
            links: &self.links,
            ifindexes: &ifindexes,
            path_mtus: &self.path_mtus,
            mtu_limit: self.mtu_limit,
        };
        let (hops, nics) = (ways.to_backends(&table), ways.nics());
        Ok(Forwarding::new(self.forwarding.sequence, table, hops, nics))
    }
}
