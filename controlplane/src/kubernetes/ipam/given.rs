//! At most one address of each family.

use std::net::IpAddr;

use crate::kubernetes::facts::Family;

/// What a Service has, or is about to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given([Option<IpAddr>; 2]);

impl Given {
    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        self.0[family as usize]
    }

    /// With another address of a family, or with none.
    pub fn with(mut self, family: Family, address: Option<IpAddr>) -> Self {
        self.0[family as usize] = address;
        self
    }

    /// Without those that a condition does not hold for.
    pub fn retain(self, keep: impl Fn(IpAddr) -> bool) -> Self {
        Self(self.0.map(|address| address.filter(|address| keep(*address))))
    }

    /// Every address, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.into_iter().flatten()
    }

    /// Whether there is one of each of these families.
    pub fn has_all(&self, families: &[Family]) -> bool {
        families.iter().all(|family| self.of(*family).is_some())
    }
}
