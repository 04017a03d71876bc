//! Turns what the operator asks into what the dataplane obeys. Pure, and the same input gives the same
//! output; nothing can fail here, because a [`Config`] is valid.

use crate::config::{self, Config};
use crate::snapshot::{Backend, FleetKey, Pool, Service, Snapshot};

/// The snapshot of a configuration, with generation 0 and without ways for probes: the control plane numbers both.
pub fn compile(config: &Config, fleet_key: FleetKey) -> Snapshot {
    Snapshot {
        generation: 0,
        fleet_key,
        maglev_size: config.maglev_size,
        nics: config.nics.clone(),
        dataplane: config.dataplane.clone(),
        timeouts: config.timeouts,
        tunnel: config.tunnel,
        nat: config.nat.clone(),
        reply_rate: config.reply_rate,
        pools: config.pools.iter().map(pool).collect(),
        services: config.services.iter().map(service).collect(),
        probes: Vec::new(),
    }
}

fn pool(pool: &config::Pool) -> Pool {
    Pool { name: pool.name.clone(), backends: pool.backends.iter().map(backend).collect() }
}

fn backend(backend: &config::Backend) -> Backend {
    Backend {
        name: backend.name.clone(),
        address: backend.address,
        weight: backend.weight,
        mode: backend.mode,
    }
}

fn service(service: &config::Service) -> Service {
    Service {
        name: service.name.clone(),
        vips: service.vips.clone(),
        ports: service.ports.clone(),
        pool: u32::try_from(service.pool).expect("the number of pools is limited"),
        source_ranges: service.source_ranges.clone(),
        client_ip_affinity_s: service.client_ip_affinity_s,
        unlisted_ports: service.unlisted_ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_points_at_its_pool_and_nothing_is_lost() {
        let text = r#"
            nic = [{ name = "eth1" }]
            dataplane = { maglev_size = 251 }
            [pools.a]
            backends = [{ name = "a1", address = "10.0.0.1", weight = 3 }]
            [pools.b]
            mode = "ipip"
            backends = [{ name = "b1", address = "fd00::1" }]
            [[service]]
            name = "s"
            vip = ["10.1.0.1", "fd00:1::1"]
            ports = ["tcp/80", "udp/80"]
            pool = "b"
        "#;
        let config = Config::parse(text, "f").unwrap();
        let key = FleetKey([7; 16]);
        let snapshot = compile(&config, key);
        assert_eq!(snapshot, compile(&config, key));
        assert_eq!((snapshot.fleet_key, snapshot.maglev_size, &snapshot.nics), (key, 251, &config.nics));
        let service = &snapshot.services[0];
        assert_eq!((service.name.as_str(), service.vips.len(), service.ports.len()), ("s", 2, 2));
        let pool = &snapshot.pools[service.pool as usize];
        assert_eq!((pool.name.as_str(), pool.backends[0].name.as_str()), ("b", "b1"));
        assert_eq!(snapshot.pools[0].backends[0].weight, 3);
    }
}
