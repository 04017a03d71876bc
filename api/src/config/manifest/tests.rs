use super::*;

/// The same documents are judged by the API server's rules, in `tests/cluster/pools.sh`.
const GOOD: &str = include_str!("../../../../tests/cluster/pools/good.yaml");
const BAD: &str = include_str!("../../../../tests/cluster/pools/bad.yaml");

fn problem(text: &str) -> String {
    read(text, "f").map(|found| format!("{found:?}")).unwrap_err().to_string()
}

#[test]
fn good_pools_are_read_as_written() {
    let documents: Vec<&str> = GOOD.split("\n---\n").collect();
    let pools: Vec<AddressPool> =
        documents.iter().flat_map(|document| read(document, "f").unwrap().pools).collect();
    assert_eq!(pools.len(), documents.len());
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let ranges = [
        "198.51.100.0/24",
        "203.0.113.10-203.0.113.20",
        "192.0.2.7",
        "2001:db8:1::/64",
        "2001:db8::1-2001:db8::ff",
    ];
    let everything = AddressPool {
        name: "everything".into(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        auto_assign: false,
        priority: 10_000,
        namespaces: vec!["default".into(), "b-1".into()],
        namespace_selector: label("stage", ""),
        service_selector: label("example.net/team", "web"),
        avoid_edges: false,
    };
    assert_eq!(pools[0], everything);
    assert!(pools[1].auto_assign && !pools[1].avoid_edges);
    assert_eq!(pools[2], AddressPool::new("least", vec!["198.51.100.0/24".parse().unwrap()]));
}

#[test]
fn bad_pools_are_refused_with_what_to_write() {
    let cases = BAD.split("---\n").skip(1);
    for case in cases {
        let expected =
            case.lines().next().unwrap().strip_prefix("# refused: ").expect("says what is expected");
        let body: String =
            case.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
        let said = problem(&body);
        let said = said.splitn(4, ':').nth(3).unwrap_or(&said).trim_start().to_owned();
        assert_eq!(said, expected, "{case}");
    }
}

#[test]
fn a_file_has_several_objects() {
    let pool = |name: &str, range: &str| {
        format!(
            "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  name: {name}\nspec:\n  addresses: [{range}]\n"
        )
    };
    let (a, b) = (pool("a", "198.51.100.0/24"), pool("b", "198.51.100.7"));
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: { name: x }\n";
    let found = read(&format!("{other}---\n{a}"), "f").unwrap();
    assert_eq!(found.pools.len(), 1);
    assert_eq!(found.warnings[0].to_string(), "f:2:7: kind: this is no ShuntPool, and was not looked at");
    assert_eq!(
        problem(&format!("{a}---\n{b}")),
        "f:13:15: spec.addresses[0]: 198.51.100.7 overlaps 198.51.100.0/24 of ShuntPool `a` (line 6); write \
         addresses that no other pool has"
    );
    assert_eq!(
        problem(&format!("{a}---\n{a}")),
        "f:11:9: metadata.name: `a` is already a pool of this file (line 4); remove one or write another"
    );
    assert_eq!(problem("# nothing\n"), "f:1:1: there is no object; write one of kind ShuntPool");
    assert_eq!(
        problem(&a.replace("v1alpha1", "v1")),
        "f:1:13: apiVersion: a ShuntPool is of shunt.dev/v1alpha1; write that"
    );
    let json = r#"{"apiVersion":"shunt.dev/v1alpha1","kind":"ShuntPool","metadata":{"name":"j"},"spec":{"addresses":["2001:db8::/64"],"avoidEdges":true}}"#;
    assert_eq!(read(json, "f").unwrap().pools[0].name, "j");
}
