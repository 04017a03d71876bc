//! What is sent to the API for an action. Each body names the Service's uid, so that it never hits a later Service of
//! the same name.

use serde_json::{Value, json};

use super::ownership::{FINALIZER, MARK};
use super::status::{Condition, Status};
use crate::kubernetes::facts::{Ingress, Labels, ServiceKey};

/// For server-side apply to `services/status`, without force. What is left out is given up, so the default status clears
/// what was ours. `now` is a time as in RFC 3339.
pub fn status(key: &ServiceKey, uid: &str, status: &Status, now: &str) -> Value {
    let mut applied = serde_json::Map::new();
    if !status.ingress.is_empty() {
        let ingress: Vec<_> = status.ingress.iter().map(entry).collect();
        applied.insert("loadBalancer".into(), json!({ "ingress": ingress }));
    }
    if !status.conditions.is_empty() {
        let conditions: Vec<_> = status.conditions.iter().map(|shown| condition(shown, now)).collect();
        applied.insert("conditions".into(), conditions.into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": key.namespace, "name": key.name, "uid": uid },
        "status": applied,
    })
}

/// JSON patch (RFC 6902) that adds the finalizer and the mark; `None` if both are there. Fails if somebody changes the
/// finalizers meanwhile.
pub fn claim(uid: &str, finalizers: &[String], annotations: &Labels, class: &str) -> Option<Value> {
    let mut operations = vec![];
    if finalizers.is_empty() {
        operations.push(json!({ "op": "test", "path": "/metadata/finalizers", "value": null }));
        operations.push(json!({ "op": "add", "path": "/metadata/finalizers", "value": [FINALIZER] }));
    } else if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        operations.push(json!({ "op": "test", "path": "/metadata/finalizers", "value": finalizers }));
        operations.push(json!({ "op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER }));
    }
    if annotations.is_empty() {
        operations.push(json!({ "op": "test", "path": "/metadata/annotations", "value": null }));
        operations.push(json!({ "op": "add", "path": "/metadata/annotations", "value": { MARK: class } }));
    } else if annotations.get(MARK).is_none_or(|mark| mark != class) {
        operations.push(json!({ "op": "add", "path": mark_path(), "value": class }));
    }
    guarded(uid, operations)
}

/// JSON patch that removes the finalizer and the mark; `None` if neither is there. Fails if somebody changes either
/// meanwhile.
pub fn release(uid: &str, finalizers: &[String], annotations: &Labels) -> Option<Value> {
    let mut operations = vec![];
    // First, because without its last finalizer a Service that is being deleted is gone.
    if let Some(class) = annotations.get(MARK) {
        operations.push(json!({ "op": "test", "path": mark_path(), "value": class }));
        operations.push(json!({ "op": "remove", "path": mark_path() }));
    }
    if let Some(at) = finalizers.iter().position(|finalizer| finalizer == FINALIZER) {
        let path = format!("/metadata/finalizers/{at}");
        operations.push(json!({ "op": "test", "path": path, "value": FINALIZER }));
        operations.push(json!({ "op": "remove", "path": path }));
    }
    guarded(uid, operations)
}

/// Whether the API refused an apply because the fields are another manager's: the body of an answer 409 says so, and
/// other conflicts pass by themselves.
pub fn is_owned_by_another(answer: &Value) -> bool {
    let causes = answer["details"]["causes"].as_array();
    causes.is_some_and(|causes| causes.iter().any(|cause| cause["reason"] == "FieldManagerConflict"))
}

fn guarded(uid: &str, mut operations: Vec<Value>) -> Option<Value> {
    if operations.is_empty() {
        return None;
    }
    operations.insert(0, json!({ "op": "test", "path": "/metadata/uid", "value": uid }));
    Some(operations.into())
}

/// As a JSON pointer (RFC 6901).
fn mark_path() -> String {
    format!("/metadata/annotations/{}", MARK.replace('~', "~0").replace('/', "~1"))
}

fn entry(ingress: &Ingress) -> Value {
    let mut entry = serde_json::Map::new();
    if let Some(ip) = ingress.ip {
        entry.insert("ip".into(), ip.to_string().into());
    }
    if let Some(ip_mode) = &ingress.ip_mode {
        entry.insert("ipMode".into(), ip_mode.as_str().into());
    }
    let port = |(port, protocol, error): &(u16, String, Option<String>)| match error {
        Some(error) => json!({ "port": port, "protocol": protocol, "error": error }),
        None => json!({ "port": port, "protocol": protocol }),
    };
    if !ingress.ports.is_empty() {
        entry.insert("ports".into(), ingress.ports.iter().map(port).collect());
    }
    entry.into()
}

fn condition(condition: &Condition, now: &str) -> Value {
    json!({
        "type": condition.kind,
        "status": if condition.status { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.as_deref().unwrap_or(now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn a_status_is_applied_with_what_is_ours_alone() {
        let key = ServiceKey { namespace: "shop".into(), name: "web".into() };
        let shown = Status {
            ingress: vec![Ingress {
                ip: Some([203, 0, 113, 10].into()),
                ip_mode: Some("VIP".into()),
                ports: vec![(80, "TCP".into(), None), (81, "SCTP".into(), Some("shunt.dev/X".into()))],
            }],
            conditions: vec![Condition {
                kind: "shunt.dev/Programmed",
                status: true,
                reason: "Programmed".into(),
                message: "served".into(),
                since: None,
            }],
        };
        let now = "2026-01-02T03:04:05Z";
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": "shop", "name": "web", "uid": "u1" },
            "status": {
                "loadBalancer": { "ingress": [{ "ip": "203.0.113.10", "ipMode": "VIP", "ports": [
                    { "port": 80, "protocol": "TCP" },
                    { "port": 81, "protocol": "SCTP", "error": "shunt.dev/X" },
                ] }] },
                "conditions": [{
                    "type": "shunt.dev/Programmed", "status": "True", "reason": "Programmed", "message": "served",
                    "lastTransitionTime": now,
                }],
            },
        });
        assert_eq!(status(&key, "u1", &shown, now), expected);
        assert_eq!(status(&key, "u1", &Status::default(), now)["status"], json!({}));
    }

    #[test]
    fn claiming_guards_against_others() {
        let uid = json!({ "op": "test", "path": "/metadata/uid", "value": "u1" });
        let all_new = json!([
            uid,
            { "op": "test", "path": "/metadata/finalizers", "value": null },
            { "op": "add", "path": "/metadata/finalizers", "value": [FINALIZER] },
            { "op": "test", "path": "/metadata/annotations", "value": null },
            { "op": "add", "path": "/metadata/annotations", "value": { MARK: "shunt.dev/l4" } },
        ]);
        assert_eq!(claim("u1", &[], &labels(&[]), "shunt.dev/l4"), Some(all_new));
        let beside = json!([
            uid,
            { "op": "test", "path": "/metadata/finalizers", "value": ["x"] },
            { "op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER },
            { "op": "add", "path": "/metadata/annotations/shunt.dev~1class", "value": "shunt.dev/l4" },
        ]);
        assert_eq!(claim("u1", &["x".into()], &labels(&[("a", "b")]), "shunt.dev/l4"), Some(beside));
        assert_eq!(claim("u1", &[FINALIZER.into()], &labels(&[(MARK, "c")]), "c"), None);
    }

    #[test]
    fn releasing_removes_only_what_is_there() {
        let uid = json!({ "op": "test", "path": "/metadata/uid", "value": "u1" });
        let both = json!([
            uid,
            { "op": "test", "path": "/metadata/annotations/shunt.dev~1class", "value": "c" },
            { "op": "remove", "path": "/metadata/annotations/shunt.dev~1class" },
            { "op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER },
            { "op": "remove", "path": "/metadata/finalizers/1" },
        ]);
        let finalizers = ["x".to_owned(), FINALIZER.to_owned()];
        assert_eq!(release("u1", &finalizers, &labels(&[(MARK, "c"), ("a", "b")])), Some(both));
        assert_eq!(release("u1", &["x".into()], &labels(&[])), None);
    }

    #[test]
    fn only_a_conflict_of_managers_means_another_owner() {
        let conflict =
            json!({ "code": 409, "details": { "causes": [{ "reason": "FieldManagerConflict" }] } });
        assert!(is_owned_by_another(&conflict));
        assert!(!is_owned_by_another(&json!({ "code": 409, "reason": "Conflict" })));
    }
}
