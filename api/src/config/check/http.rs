//! The keys of checks of types `http` and `https`.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::super::document::Value;
use super::super::{CHECK_PATH_MAX, CHECK_TEXT_MAX, HTTP_STATUS};
use super::read::{Keys, port};
use super::{HttpCheck, Tls};
use crate::status::ConfigProblem;

/// Longest host name (RFC 1035, section 2.3.4) and the port that may follow it.
const HOST_MAX: usize = 253 + ":65535".len();
/// Good answers and redirections, as for the probes of Kubernetes.
const STATUS: RangeInclusive<u16> = 200..=399;

/// Reads a check; `place` is where to point for the whole of it.
pub fn check(keys: &Keys<'_, '_>, tls: bool, place: &Value<'_>) -> Result<HttpCheck, ConfigProblem> {
    let methods = ["GET", "HEAD", "OPTIONS", "POST"].map(|method| (method, method));
    let method = keys.or("method", "GET", |value| value.one_of(&methods))?;
    let text = keys.optional("text");
    if let Some(value) = text.as_ref().filter(|_| method == "HEAD") {
        return Err(value.problem("an answer to HEAD has no text; write method = \"GET\", or remove `text`"));
    }
    let host = keys.read("host", host)?;
    let tls = if tls { Some(self::tls(keys, host.as_deref(), place)?) } else { None };
    Ok(HttpCheck {
        port: port(keys)?,
        tls,
        method: method.into(),
        path: keys.or("path", "/".into(), path)?,
        host,
        status: keys.or("status", vec![STATUS], status)?,
        text: text.as_ref().map(expected_text).transpose()?,
    })
}

fn path(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"/healthz\"")?;
    let shown = text.escape_debug();
    if !text.starts_with('/') {
        return Err(
            value.problem(format!("`{shown}` does not begin with `/`; write one such as \"/healthz\""))
        );
    }
    // RFC 3986 has more rules, but these are what would make it another request.
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        let reason = format!("`{shown}` is not a path; write other characters as % and two digits");
        return Err(value.problem(reason));
    }
    if text.len() > CHECK_PATH_MAX {
        let reason = format!("the path has {} characters; write at most {CHECK_PATH_MAX}", text.len());
        return Err(value.problem(reason));
    }
    Ok(text.into())
}

/// A name or an address, either with a port or without: the value of the header `Host`.
fn host(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
    let host = named(value, &allowed)?;
    match host.parse::<Ipv6Addr>() {
        Ok(address) => {
            Err(value.problem(format!("an IPv6 address needs brackets here; write \"[{address}]\"")))
        }
        Err(_) => Ok(host),
    }
}

fn server_name(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match value.text().filter(|text| text.parse::<IpAddr>().is_ok()) {
        Some(address) => Ok(address.into()),
        None => named(value, &allowed),
    }
}

fn named(value: &Value<'_>, allowed: &dyn Fn(u8) -> bool) -> Result<String, ConfigProblem> {
    let example = "\"www.example.net\"";
    let text = value.string(example)?;
    if !text.is_empty() && text.len() <= HOST_MAX && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(value.problem(format!("`{}` is not a host name; write one such as {example}", text.escape_debug())))
}

/// A certificate is for a name, so verifying one takes a name.
fn tls(keys: &Keys<'_, '_>, host: Option<&str>, place: &Value<'_>) -> Result<Tls, ConfigProblem> {
    let verify = keys.or("verify", true, Value::boolean)?;
    let server_name = keys.read("server_name", server_name)?.or_else(|| host.map(without_port));
    if verify && server_name.is_none() {
        return Err(place.problem(
            "a certificate is verified for a name; add host = \"www.example.net\" or server_name = \
             \"www.example.net\", or verify = false to take any certificate",
        ));
    }
    Ok(Tls { verify, server_name })
}

/// `name`, `name:port`, `[address]` and `[address]:port` without what is around name or address.
fn without_port(host: &str) -> String {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.into();
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name.into(),
        _ => host.into(),
    }
}

/// `200`, `"200-399"`, or a list of such.
fn status(value: &Value<'_>) -> Result<Vec<RangeInclusive<u16>>, ConfigProblem> {
    let elements = value.one_or_more("[200, \"300-399\"]")?;
    elements.iter().map(one_status).collect()
}

fn one_status(value: &Value<'_>) -> Result<RangeInclusive<u16>, ConfigProblem> {
    let Some(text) = value.text() else {
        let code = u16::try_from(value.integer(HTTP_STATUS)?).expect("the range fits");
        return Ok(code..=code);
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| HTTP_STATUS.contains(&u32::from(*code)));
    match (code(low), code(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        (Some(low), Some(high)) => {
            Err(value.problem(format!("the range ends before it begins; write \"{high}-{low}\"")))
        }
        _ => {
            let (shown, range) = (text.escape_debug(), HTTP_STATUS);
            let (first, last) = (range.start(), range.end());
            Err(value.problem(format!(
                "`{shown}` is no status; write numbers from {first} to {last}, such as 200, \"200-399\" or [200, 204]"
            )))
        }
    }
}

fn expected_text(value: &Value<'_>) -> Result<String, ConfigProblem> {
    let text = value.string("\"ok\"")?;
    match text.len() {
        0 => {
            Err(value.problem("every answer contains nothing; write what it must contain, or remove the key"))
        }
        length if length > CHECK_TEXT_MAX => {
            Err(value.problem(format!("the text has {length} bytes; write at most {CHECK_TEXT_MAX}")))
        }
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port_and_brackets() {
        let cases = [
            ("www.example.net", "www.example.net"),
            ("www.example.net:8443", "www.example.net"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ];
        for (host, name) in cases {
            assert_eq!(without_port(host), name);
        }
    }
}
