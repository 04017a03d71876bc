//! Reads the keys `check`, `on_down` and `slow_start` of a pool, and `when_all_down` of a service.

use std::time::Duration;

use super::super::document::{Table, Value};
use super::super::{
    Backend, CHECK_COUNT, CHECK_INTERVAL, CHECK_PAYLOAD_MAX, CHECK_TIMEOUT, PORT, SLOW_START, or_default,
    value,
};
use super::{Check, CheckKind, OnDown, Via, WhenAllDown, http};
use crate::snapshot::Mode;
use crate::status::ConfigProblem;

/// As long as a backend may be broken without notice, over `fall`.
const INTERVAL: Duration = Duration::from_secs(2);
/// A backend that needs longer for a probe is of little use to a client.
const TIMEOUT: Duration = Duration::from_secs(1);
/// More than one, because a backend that starts may answer once and die.
const RISE: u32 = 2;
/// More than one, because a single packet may be lost.
const FALL: u32 = 3;

/// Keys of every check that asks something.
const COMMON: [&str; 6] = ["type", "interval", "timeout", "rise", "fall", "via"];
/// Keys that only some types of check have, with a type to propose.
const SPECIAL: [(&str, &str); 10] = [
    ("port", "tcp"),
    ("method", "http"),
    ("path", "http"),
    ("host", "http"),
    ("status", "http"),
    ("text", "http"),
    ("verify", "https"),
    ("server_name", "https"),
    ("payload", "udp"),
    ("answer", "udp"),
];

/// A check with the places to point at.
pub struct CheckRead<'d> {
    /// What is to be done.
    pub check: Check,
    /// Where the check is written.
    pub place: Value<'d>,
}

/// What a pool says about the health of its backends.
pub struct HealthRead<'d> {
    /// `None`: backends are taken to be up.
    pub check: Option<CheckRead<'d>>,
    /// What becomes of the flows of a backend that goes down.
    pub on_down: OnDown,
    /// For how long the share of a backend that came up grows; `None`: it is whole at once.
    pub slow_start: Option<Duration>,
    /// Keys that do nothing without a check.
    pub followers: Vec<Value<'d>>,
}

/// The types of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    None,
    Tcp,
    Http,
    Https,
    Udp,
    Icmp,
}

/// The words of the types, for people who have to choose one.
const TYPES: [(&str, Type); 6] = [
    ("tcp", Type::Tcp),
    ("http", Type::Http),
    ("https", Type::Https),
    ("udp", Type::Udp),
    ("icmp", Type::Icmp),
    ("none", Type::None),
];

/// Reads what a pool says; its backends say which way probes take by default and which they cannot.
pub fn health<'d, 'b>(
    table: &Table<'d>,
    mode: Mode,
    backends: impl Iterator<Item = &'b Backend> + Clone,
) -> Result<HealthRead<'d>, ConfigProblem> {
    let nat = backends.clone().find(|backend| backend.mode == Mode::Nat).map(|backend| backend.name.as_str());
    let mut modes = backends.map(|backend| backend.mode).chain(nat.is_none().then_some(mode));
    let default_via = if modes.all(|mode| mode == Mode::Nat) { Via::Direct } else { Via::Service };
    let check = table.optional("check").map(|value| check(&value, default_via, nat)).transpose()?;
    Ok(HealthRead {
        check: check.flatten(),
        on_down: or_default(table, "on_down", OnDown::default(), on_down)?,
        slow_start: table.optional("slow_start").as_ref().map(slow_start).transpose()?,
        followers: ["on_down", "slow_start"].iter().filter_map(|key| table.optional(key)).collect(),
    })
}

/// Reads a check; `None` if it is of type `none`. `nat` names a backend of mode `nat`, if there is one.
fn check<'d>(
    value: &Value<'d>,
    default_via: Via,
    nat: Option<&str>,
) -> Result<Option<CheckRead<'d>>, ConfigProblem> {
    let example = "\"tcp\", or a table such as { type = \"http\", path = \"/healthz\" }";
    let (kind, table) = match value.text() {
        Some(_) => (value.one_of(&TYPES)?, None),
        None => {
            let table = value.table(example)?;
            let kind = table.required("type", "\"tcp\"")?;
            (kind.one_of(&TYPES)?, Some(table))
        }
    };
    if let Some(table) = &table {
        refuse_unknown(table, kind)?;
    }
    let keys = Keys(table.as_ref());
    let kind = match kind {
        Type::None => return Ok(None),
        Type::Tcp => CheckKind::Tcp { port: port(&keys)? },
        Type::Http => CheckKind::Http(http::check(&keys, false, value)?),
        Type::Https => CheckKind::Http(http::check(&keys, true, value)?),
        Type::Udp => udp(&keys)?,
        Type::Icmp => CheckKind::Icmp,
    };
    let (interval, timeout) = times(&keys)?;
    let count = |value: &Value<'d>| value.integer(CHECK_COUNT);
    let check = Check {
        kind,
        interval,
        timeout,
        rise: keys.or("rise", RISE, count)?,
        fall: keys.or("fall", FALL, count)?,
        via: keys.or("via", default_via, |value| via(value, nat))?,
    };
    Ok(Some(CheckRead { check, place: value.clone() }))
}

/// The keys of a check; none if only its type is written.
pub struct Keys<'t, 'd>(Option<&'t Table<'d>>);

impl<'d> Keys<'_, 'd> {
    /// The value of a key, if it is there.
    pub fn optional(&self, key: &str) -> Option<Value<'d>> {
        self.0.and_then(|table| table.optional(key))
    }

    /// The value of a key that may be left out.
    pub fn or<T>(
        &self,
        key: &str,
        default: T,
        read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
    ) -> Result<T, ConfigProblem> {
        match self.0 {
            Some(table) => or_default(table, key, default, read),
            None => Ok(default),
        }
    }

    /// What a key that may be left out says.
    pub fn read<T>(
        &self,
        key: &str,
        read: impl Fn(&Value<'d>) -> Result<T, ConfigProblem>,
    ) -> Result<Option<T>, ConfigProblem> {
        self.optional(key).as_ref().map(read).transpose()
    }
}

/// A key of another type of check is told from one that is none at all.
fn refuse_unknown(table: &Table<'_>, kind: Type) -> Result<(), ConfigProblem> {
    let word = TYPES.iter().find(|(_, listed)| *listed == kind).expect("all are listed").0;
    let known = known(kind);
    for (key, suggested) in SPECIAL.iter().filter(|(key, _)| !known.contains(key)) {
        if let Some(value) = table.optional(key) {
            return Err(value.problem(format!(
                "a check of type {word} has no `{key}`; remove it, or write type = \"{suggested}\""
            )));
        }
    }
    table.allow_only(&known)
}

/// The keys that a type of check has.
fn known(kind: Type) -> Vec<&'static str> {
    let special: &[&str] = match kind {
        Type::None => return vec!["type"],
        Type::Icmp => &[],
        Type::Tcp => &["port"],
        Type::Udp => &["port", "payload", "answer"],
        Type::Http => &["port", "method", "path", "host", "status", "text"],
        Type::Https => &["port", "method", "path", "host", "status", "text", "verify", "server_name"],
    };
    COMMON.iter().chain(special).copied().collect()
}

/// The port that a check names.
pub fn port(keys: &Keys<'_, '_>) -> Result<Option<u16>, ConfigProblem> {
    let port = |value: &Value<'_>| Ok(u16::try_from(value.integer(PORT)?).expect("the range fits"));
    keys.read("port", port)
}

/// Interval and timeout. An interval below the usual timeout shortens it.
fn times(keys: &Keys<'_, '_>) -> Result<(Duration, Duration), ConfigProblem> {
    let interval = keys.or("interval", INTERVAL, |value| value::duration(value, CHECK_INTERVAL))?;
    let timeout = |value: &Value<'_>| {
        let timeout = value::duration(value, CHECK_TIMEOUT)?;
        if timeout <= interval {
            return Ok(timeout);
        }
        let [long, most] = [timeout, interval].map(humantime::format_duration);
        Err(value.problem(format!(
            "{long} is longer than the interval, and a probe must end before the next one; write at most \
             \"{most}\", or a longer interval"
        )))
    };
    Ok((interval, keys.or("timeout", TIMEOUT.min(interval), timeout)?))
}

fn via(value: &Value<'_>, nat: Option<&str>) -> Result<Via, ConfigProblem> {
    let via = value.one_of(&[("service", Via::Service), ("direct", Via::Direct)])?;
    match nat {
        Some(backend) if via == Via::Service => Err(value.problem(format!(
            "backend `{backend}` is of mode nat and knows no VIP to probe; write \"direct\", or leave `via` out \
             to probe only such backends directly"
        ))),
        _ => Ok(via),
    }
}

fn udp(keys: &Keys<'_, '_>) -> Result<CheckKind, ConfigProblem> {
    Ok(CheckKind::Udp {
        port: port(keys)?,
        payload: keys.or("payload", Vec::new(), bytes)?,
        answer: keys.read("answer", bytes)?,
    })
}

/// Text as it is, or bytes as `hex:` and pairs of digits with or without spaces between them.
fn bytes(value: &Value<'_>) -> Result<Vec<u8>, ConfigProblem> {
    let text = value.string("\"ping\" or \"hex:0a1b\"")?;
    let bytes = match text.strip_prefix("hex:") {
        None => text.as_bytes().to_vec(),
        Some(digits) => from_hex(digits).ok_or_else(|| {
            value.problem(
                "after `hex:` there must be pairs of hexadecimal digits; write one such as \"hex:0a1b\"",
            )
        })?,
    };
    if bytes.len() <= CHECK_PAYLOAD_MAX {
        return Ok(bytes);
    }
    let length = bytes.len();
    Err(value
        .problem(format!("these are {length} bytes; write at most {CHECK_PAYLOAD_MAX}, which fit a packet")))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).map(|digit| u8::try_from(digit).expect("below 16")))
        .collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn on_down(value: &Value<'_>) -> Result<OnDown, ConfigProblem> {
    value.one_of(&[("rehash", OnDown::Rehash), ("keep", OnDown::Keep)])
}

fn slow_start(value: &Value<'_>) -> Result<Duration, ConfigProblem> {
    value::duration(value, SLOW_START)
}

/// What a service does without a backend that is up.
pub fn when_all_down(value: &Value<'_>) -> Result<WhenAllDown, ConfigProblem> {
    value.one_of(&[("use-all", WhenAllDown::UseAll), ("refuse", WhenAllDown::Refuse)])
}
