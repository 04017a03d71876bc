//! Why a snapshot is refused.

use std::net::IpAddr;

use shunt_api::snapshot::ServicePort;

use crate::conntrack::BackendId;
use crate::limits;
use crate::nat::SourceId;

/// Why a snapshot cannot be served. The control plane checks the same before it sends one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// A service points beyond the pools.
    #[error(
        "service `{service}` names pool number {pool}, but there are only {pools}; are both daemons of one version?"
    )]
    NoSuchPool {
        /// Name of the service.
        service: String,
        /// Index it gave.
        pool: u32,
        /// How many there are.
        pools: usize,
    },
    /// Two services claim one address and port.
    #[error(
        "{vip} {port} belongs to service `{first}` and to `{second}`; give one of them another address or port"
    )]
    Taken {
        /// Address claimed twice.
        vip: IpAddr,
        /// Port claimed twice.
        port: ServicePort,
        /// Who had it.
        first: String,
        /// Who wants it.
        second: String,
    },
    /// One address twice in a pool.
    #[error(
        "pool `{pool}` has backend address {address} twice; an address is a backend's identity: remove one"
    )]
    DuplicateBackend {
        /// Name of the pool.
        pool: String,
        /// The address.
        address: IpAddr,
    },
    /// More backends than Maglev slots can tell apart.
    #[error(
        "pool `{pool}` has {count} backends; split it, at most {} are possible",
        limits::MAX_POOL_BACKENDS
    )]
    TooManyBackends {
        /// Name of the pool.
        pool: String,
        /// How many it has.
        count: usize,
    },
    /// The table size is no prime in range.
    #[error("maglev_size {0} is not a prime in 251…655373; 65537 is the usual one")]
    MaglevSize(u32),
    /// More backend addresses than flow entries can name.
    #[error("more than {} backend addresses have been in use; restart shunt-dataplane", BackendId::LIMIT)]
    OutOfIdentities,
    /// A translated service without an address to come from.
    #[error(
        "service `{service}` has VIP {vip} and nat backends; give [nat] sources an address of that family"
    )]
    NoSource {
        /// Name of the service.
        service: String,
        /// Its VIP.
        vip: IpAddr,
    },
    /// Translation keeps the family.
    #[error("service `{service}` has VIP {vip} and nat backend {backend}; nat cannot change the family")]
    Family {
        /// Name of the service.
        service: String,
        /// Its VIP.
        vip: IpAddr,
        /// The backend of the other family.
        backend: IpAddr,
    },
    /// A source that is also a VIP.
    #[error("{0} is in [nat] sources and a VIP; replies and clients could not be told apart, remove one")]
    SourceIsVip(IpAddr),
    /// More sources than bindings can name.
    #[error("more than {} [nat] sources have been in use; restart shunt-dataplane", SourceId::LIMIT)]
    OutOfSources,
}
