//! Why a Service does not have what it asks for.

use std::fmt;

/// What a person needs to know to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For conditions, events and counters.
    pub reason: Reason,
    /// Says what is wrong and what to do.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// What is written cannot be meant: no address, two of a family, or two places that disagree.
    InvalidRequest,
    /// The requested address is of a family that the Service does not have.
    WrongFamily,
    /// No pool has the address, or not the pool that the Service names.
    AddressNotInPool,
    /// The pool has the address but does not give it: it ends in .0 or .255.
    AddressAvoided,
    /// Another Service has it, and the two cannot share.
    AddressInUse,
    /// The pool is for other namespaces or Services.
    PoolNotAllowed,
    /// The Service names a pool that does not exist.
    UnknownPool,
    /// No pool has addresses of that family for the Service.
    NoPool,
    /// All addresses that would do are in use.
    PoolExhausted,
}

impl Reason {
    /// As conditions and events write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "InvalidRequest",
            Self::WrongFamily => "WrongFamily",
            Self::AddressNotInPool => "AddressNotInPool",
            Self::AddressAvoided => "AddressAvoided",
            Self::AddressInUse => "AddressInUse",
            Self::PoolNotAllowed => "PoolNotAllowed",
            Self::UnknownPool => "UnknownPool",
            Self::NoPool => "NoPool",
            Self::PoolExhausted => "PoolExhausted",
        }
    }

    /// A refusal for this reason.
    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal { reason: self, message: message.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}
