//! Names as Kubernetes knows them (RFC 1123 labels and subdomains, and keys and values of labels).

use super::super::document::{Key, Value};
use crate::status::ConfigProblem;

/// Longest label of a name, and longest name of a key or a value of a label.
const LABEL_MAX: usize = 63;
/// Longest name of several labels.
const SUBDOMAIN_MAX: usize = 253;

/// A DNS label, such as the name of a namespace.
pub fn label(value: &Value<'_>, example: &str) -> Result<String, ConfigProblem> {
    let text = value.string(example)?;
    if is_label(text) {
        return Ok(text.into());
    }
    Err(value.problem(format!(
        "`{}` is no DNS label; write small letters, digits and `-` inside, at most {LABEL_MAX}, such as {example}",
        text.escape_debug()
    )))
}

/// A class of load balancers.
pub fn class(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"shunt.dev/l4\"")?;
    if is_qualified(text) {
        return Ok(text.into());
    }
    Err(value.problem(format!(
        "`{}` is not a class that a Service can have; write one such as \"shunt.dev/l4\"",
        text.escape_debug()
    )))
}

/// The key of a label.
pub fn label_key(key: &Key<'_>) -> Result<String, ConfigProblem> {
    if is_qualified(key.name) {
        return Ok(key.name.into());
    }
    let name = key.name.escape_debug();
    Err(key.problem(format!(
        "`{name}` is not the key of a label; write one such as `team` or \"example.net/team\""
    )))
}

/// The value of a label, which may be empty.
pub fn label_value(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"web\"")?;
    if text.is_empty() || is_word(text) {
        return Ok(text.into());
    }
    Err(value.problem(format!(
        "`{}` is not the value of a label; write letters, digits, and `-`, `_` and `.` inside, at most {LABEL_MAX}",
        text.escape_debug()
    )))
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= LABEL_MAX && text.bytes().all(allowed) && has_alphanumeric_ends(text)
}

/// Whether a text is DNS labels with dots between.
fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_word(name),
        None => is_word(text),
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.len() <= LABEL_MAX && text.bytes().all(allowed) && has_alphanumeric_ends(text)
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
}
