//! What operators are told about routes. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rustix::io::Errno;
use tracing::Level;

use super::message::Change;
use super::plan::Place;
use crate::journal::Happening;

/// Changes of one kind at once that get a line each; more share one.
const LINES_MAX: usize = 8;
/// Prefixes named in a line about many.
const NAMED_MAX: usize = 3;

/// Something that happened to one route.
pub type Told = (IpNet, &'static str, Option<&'static str>);

/// The lines about what happened to routes of a table: what became of them and why, each reason by itself.
pub fn lines(table: u32, told: &[Told]) -> Vec<Happening> {
    let mut kinds: BTreeMap<_, Vec<IpNet>> = BTreeMap::new();
    for (prefix, text, reason) in told {
        kinds.entry((*text, *reason)).or_default().push(*prefix);
    }
    let of_kind = |((text, reason), prefixes): ((&str, Option<&str>), Vec<IpNet>)| {
        let line = |subject, text| Happening {
            level: Level::INFO,
            subject,
            text,
            reason: reason.map(str::to_owned),
        };
        if prefixes.len() <= LINES_MAX {
            let each = |prefix| line(format!("route {prefix} in table {table}"), text.to_owned());
            return prefixes.into_iter().map(each).collect();
        }
        let many = format!("{} {text}: {}", prefixes.len(), some(&prefixes));
        vec![line(format!("routes in table {table}"), many)]
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// What stands in the way, and what to do about it, one sentence for each cause.
pub fn problems(place: Place, refused: &[(Change, Errno)]) -> Vec<String> {
    let mut causes: Vec<((Errno, bool, bool), Vec<IpNet>)> = Vec::new();
    for (change, errno) in refused {
        let prefix = change.prefix();
        let cause = (*errno, matches!(change, Change::Add(_)), prefix.addr().is_ipv4());
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, prefixes)) => prefixes.push(prefix),
            None => causes.push((cause, vec![prefix])),
        }
    }
    causes.into_iter().map(|((errno, add, v4), prefixes)| problem(place, errno, add, v4, &prefixes)).collect()
}

fn problem(place: Place, errno: Errno, add: bool, v4: bool, prefixes: &[IpNet]) -> String {
    let Place { table, protocol } = place;
    let done = if add { "added to" } else { "removed from" };
    let what = format!("{} cannot be {done} table {table}", some(prefixes));
    let ip = if v4 { "ip" } else { "ip -6" };
    match errno {
        Errno::PERM => format!(
            "{what}: the control plane may not change routes; give it CAP_NET_ADMIN (AmbientCapabilities= of its \
             systemd unit), or run it as root"
        ),
        Errno::EXIST => format!(
            "{what}: a route that is not of protocol {protocol} is in the way; remove it (`{ip} route show table \
             {table}`), or give Shunt a table of its own by announce.routes.table"
        ),
        Errno::AFNOSUPPORT | Errno::OPNOTSUPP => {
            format!("{what}: the kernel has no IPv6; start it without ipv6.disable=1, or remove IPv6 VIPs")
        }
        _ => format!("{what}: {errno}; see what is there by `{ip} route show table {table}`"),
    }
}

/// The first few of many.
fn some(prefixes: &[IpNet]) -> String {
    let named: Vec<_> = prefixes.iter().take(NAMED_MAX).map(IpNet::to_string).collect();
    let more = prefixes.len() - named.len();
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn host(number: usize) -> IpNet {
        IpNet::from(IpAddr::from([203, 0, 113, u8::try_from(number).unwrap()]))
    }

    fn check(told: &[Told], expected: &[&str]) {
        let lines: Vec<_> = lines(83, told)
            .into_iter()
            .map(|Happening { subject, text, reason, .. }| {
                format!("{subject}: {text} ({})", reason.unwrap_or_default())
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_few_routes_get_a_line_each_and_many_share_one() {
        check(&[], &[]);
        check(
            &[(host(1), "announced", None), (host(2), "withdrawn", Some("because"))],
            &[
                "route 203.0.113.1/32 in table 83: announced ()",
                "route 203.0.113.2/32 in table 83: withdrawn (because)",
            ],
        );
        let many: Vec<Told> = (0..=LINES_MAX).map(|number| (host(number), "announced", None)).collect();
        let line =
            "routes in table 83: 9 announced: 203.0.113.0/32, 203.0.113.1/32, 203.0.113.2/32 and 6 more ()";
        check(&many, &[line]);
        assert_eq!(lines(83, &many[..LINES_MAX]).len(), LINES_MAX);
    }

    #[test]
    fn a_cause_is_told_once_with_what_to_do() {
        let place = Place { table: 83, protocol: 84 };
        let v6 = Change::Add("2001:db8::1".parse().unwrap());
        let refused: Vec<_> = (1..=5)
            .map(|number| (Change::Add(host(number).addr()), Errno::PERM))
            .chain([(v6, Errno::EXIST), (v6, Errno::AFNOSUPPORT), (v6, Errno::NOMEM)])
            .collect();
        let problems = problems(place, &refused);
        let begin = [
            "203.0.113.1/32, 203.0.113.2/32, 203.0.113.3/32 and 2 more cannot be added to table 83: the control plane may",
            "2001:db8::1/128 cannot be added to table 83: a route that is not of protocol 84 is in the way; remove it (`ip -6 ",
            "2001:db8::1/128 cannot be added to table 83: the kernel has no IPv6",
            "2001:db8::1/128 cannot be added to table 83: Cannot allocate memory",
        ];
        assert_eq!(problems.len(), begin.len());
        for (problem, begin) in problems.iter().zip(begin) {
            assert!(problem.starts_with(begin), "{problem}");
        }
    }
}
