//! What a Service asks for, read from its specification and its annotations.

use std::net::IpAddr;

use super::{ADDRESSES, POOL, Reason, Refusal, SHARE};
use crate::kubernetes::facts::{Facts, Family, FamilyPolicy, Labels, Service, ServiceKey};

/// A Service and what it wants.
pub struct Wish<'f> {
    /// Which it is.
    pub key: &'f ServiceKey,
    /// All else about it.
    pub service: &'f Service,
    /// Labels of its namespace.
    pub namespace_labels: &'f Labels,
    /// Families it wants addresses of, the primary one first; one or two, or none if there is nothing to serve.
    pub families: &'f [Family],
    /// Addresses it asks for, one of each family at most; empty if any will do.
    pub request: Result<Vec<IpAddr>, Refusal>,
    /// The pool it names.
    pub pool: Option<&'f str>,
    /// With whom it shares.
    pub share: Option<&'f str>,
}

/// Labels of a namespace that is not known.
static NO_LABELS: Labels = Labels::new();

impl<'f> Wish<'f> {
    /// Of a Service.
    pub fn of(key: &'f ServiceKey, service: &'f Service, facts: &'f Facts) -> Self {
        let families = match service.family_policy {
            FamilyPolicy::SingleStack => service.families.get(..1).unwrap_or_default(),
            FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack => &service.families[..],
        };
        Self {
            key,
            service,
            namespace_labels: facts.namespaces.get(&key.namespace).unwrap_or(&NO_LABELS),
            families,
            request: request(service),
            pool: annotation(service, POOL),
            share: annotation(service, SHARE),
        }
    }

    /// Whether it has all that it asks for by address; so does one that does not ask.
    pub fn is_granted(&self, has: impl Fn(IpAddr) -> bool) -> bool {
        self.request.as_ref().is_ok_and(|request| request.iter().all(|address| has(*address)))
    }
}

/// The value of an annotation; an empty one is as none.
fn annotation<'f>(service: &'f Service, name: &str) -> Option<&'f str> {
    service.annotations.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn request(service: &Service) -> Result<Vec<IpAddr>, Refusal> {
    let listed = annotation(service, ADDRESSES).map(addresses).transpose()?;
    let field = service.requested_ip.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let single = field.map(|text| address(text, "spec.loadBalancerIP")).transpose()?;
    match (listed, single) {
        (Some(listed), Some(single)) if !listed.contains(&single) => {
            Err(Reason::InvalidRequest.because(format!(
                "spec.loadBalancerIP is {single}, but annotation {ADDRESSES} is {}; remove one of the two",
                words(&listed)
            )))
        }
        (Some(listed), _) => Ok(listed),
        (None, single) => Ok(single.into_iter().collect()),
    }
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, Refusal> {
    let place = format!("annotation {ADDRESSES}");
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',') {
        let address = address(part.trim(), &place)?;
        let same_family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        if let Some(other) = addresses.iter().find(same_family) {
            return Err(Reason::InvalidRequest.because(format!(
                "{place} has two addresses of one family, {other} and {address}; write one of each at most"
            )));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn address(text: &str, place: &str) -> Result<IpAddr, Refusal> {
    let address = text.parse::<IpAddr>().map_err(|_| {
        let text = text.escape_debug();
        Reason::InvalidRequest
            .because(format!("{place}: `{text}` is not an IP address; write one of a pool's"))
    })?;
    Ok(address.to_canonical())
}

/// Addresses with commas between.
pub fn words(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
