//! Whether the checks of pools fit the services that use them: is there a port to probe, and are the probes not
//! too many?

use super::super::consistency::{PoolRead, Pools};
use super::super::{PROBES_MAX, Service};
use super::read::CheckRead;
use super::targets::{Places, by_pool};
use super::{CheckKind, HttpCheck, Via};
use crate::status::ConfigProblem;

/// Refuses checks that cannot be made, and gives back what is allowed but hardly meant.
pub fn hold(pools: &Pools<'_>, services: &[Service]) -> Result<Vec<ConfigProblem>, ConfigProblem> {
    let mut warnings = Vec::new();
    let mut probes = 0;
    let pools = pools.as_slice();
    for (pool, services) in pools.iter().zip(by_pool(pools.len(), services)) {
        let Some(read) = &pool.health.check else {
            warnings.extend(pool.health.followers.iter().map(|key| {
                key.problem(
                    "this has no effect, because nothing finds out which backends are up; add `check`",
                )
            }));
            continue;
        };
        let places = Places::of(&read.check, &services);
        if let Some(service) = services.first().filter(|_| places.is_empty()) {
            return Err(no_port(read, service, pool));
        }
        probes += pool.backends().map(|backend| places.count(&read.check, backend.mode)).sum::<usize>();
        if probes > PROBES_MAX {
            return Err(too_many(read, probes));
        }
        warnings.extend(other_protocol(read, &places));
    }
    Ok(warnings)
}

fn no_port(
    CheckRead { check, place }: &CheckRead<'_>,
    service: &Service,
    pool: &PoolRead<'_>,
) -> ConfigProblem {
    let (word, protocol) = (check.kind.word(), check.kind.protocol().expect("only ports can be missing"));
    place.problem(format!(
        "a check of type {word} goes to the {protocol} ports of the services that use pool `{}`, and service `{}` \
         has none; add `port`, or check another way",
        pool.name, service.name
    ))
}

fn too_many(CheckRead { check, place }: &CheckRead<'_>, probes: usize) -> ConfigProblem {
    let fewer = match check.via {
        Via::Service => "via = \"direct\" takes one per backend and port instead of one per VIP too",
        Via::Direct => "with `port` there is only one per backend",
    };
    place.problem(format!(
        "with this check there are {probes} probes (backends × VIPs × ports), and a box makes at most {PROBES_MAX}; \
         {fewer}"
    ))
}

/// The well-known port of HTTPS answers no plain HTTP, nor the other way round.
fn other_protocol(CheckRead { check, place }: &CheckRead<'_>, places: &Places) -> Option<ConfigProblem> {
    let CheckKind::Http(HttpCheck { port: None, tls, .. }) = &check.kind else { return None };
    let (word, other, odd) = if tls.is_some() { ("https", "HTTP", 80) } else { ("http", "HTTPS", 443) };
    places.ports().any(|port| port == odd).then(|| {
        place.problem(format!(
            "without `port` this {word} check goes to port {odd} of the services, where servers speak {other}; \
             add the port that answers it"
        ))
    })
}
