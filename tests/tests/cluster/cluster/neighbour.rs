//! A second cluster, with a network of its own, and the links by which the box of another serves it, too.

use std::path::{Path, PathBuf};

use shunt_tests::error::Result;

use super::{Cluster, run_script};

/// Third number of its networks (tests/cluster/env.sh).
const SEGMENT: &str = "86";

impl Cluster {
    /// Another cluster of one node, brought up beside this one and taken down when it is dropped; no Shunt runs in it.
    /// `None` if that cannot be done here.
    pub fn neighbour(&self) -> Result<Option<Self>> {
        let prefix = format!("{}-b", self.prefix);
        let settings =
            [("P", prefix.as_str()), ("RUN", ""), ("BOX", ""), ("NODES", "1"), ("SEGMENT", SEGMENT)];
        if !run_script(&["up.sh"], &settings)? {
            return Ok(None);
        }
        run_script(&["shunt.sh", "kubeconfig"], &settings)?;
        let state = Path::new("/var/tmp/shunt-cluster").join(&prefix);
        Self::connect(prefix, state, true).map(Some)
    }

    /// How Shunt reaches it and as whom.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig.shunt")
    }

    /// Gives this cluster's box and client NICs on a neighbour's networks: `nod1` to its nodes, `mgmt1` to its API server,
    /// and `byp1`, by which its nodes answer this client instead of their own.
    pub fn join(&self, neighbour: &Self) -> Result<()> {
        let [node_v4, node_v6, api] =
            [format!("192.168.{SEGMENT}"), format!("fd00:{SEGMENT}:"), format!("172.31.{SEGMENT}")];
        neighbour.node("client").ip("link set byp0 down\n")?;
        let nics = [("nod1", "lb", "br0"), ("mgmt1", "lb", "br1"), ("byp1", "client", "br0")];
        for (nic, namespace, bridge) in nics {
            neighbour.node("sw").ip(&format!(
                "link add far-{nic} type veth peer name {nic} netns {}-{namespace}\n\
                 link set far-{nic} master {bridge} up\n",
                self.prefix
            ))?;
            self.node(namespace).ip(&format!("link set {nic} up\n"))?;
            // What AF_XDP sees is finished, as of the other NICs.
            self.node(namespace).run("ethtool", &["-K", nic, "tx", "off", "gso", "off", "gro", "off"])?;
        }
        self.node("lb").ip(&format!(
            "addr add {node_v4}.3/24 dev nod1\naddr add {node_v6}:3/64 dev nod1 nodad\naddr add {api}.13/24 dev mgmt1\n"
        ))?;
        self.node("client")
            .ip(&format!("addr add {node_v4}.254/24 dev byp1\naddr add {node_v6}:254/64 dev byp1 nodad\n"))?;
        // The gateway has another Ethernet address now.
        neighbour.nodes.iter().try_for_each(|node| neighbour.node(node).ip("neigh flush dev eth0\n"))
    }
}
