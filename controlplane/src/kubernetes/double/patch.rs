//! Patches, as the API server carries them out: JSON patches, and server-side apply of a status.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Request;
use super::respond::status;

/// Who owns which parts of a status, kept in the object; the provider never looks at it.
const OWNERS: &str = "/metadata/ownersOfStatus";

type Refusal = (u16, Value);

/// The object as a patch makes it.
pub fn patched(object: Value, request: &Request) -> Result<Value, Refusal> {
    match request.patch.as_str() {
        "json-patch+json" => json_patched(object, &request.body),
        "apply-patch+yaml" => applied(object, request),
        "merge-patch+json" => Ok(request.body.clone()),
        other => panic!("the double knows no {other}"),
    }
}

/// An update must be of the version that there is.
pub fn updated(object: &Value, request: &Request) -> Result<Value, Refusal> {
    let versions = [object, &request.body].map(|object| &object["metadata"]["resourceVersion"]);
    if versions[0] == versions[1] { Ok(request.body.clone()) } else { Err((409, status(409, "Conflict"))) }
}

/// RFC 6902: `test`, `add` and `remove`. What is not there is null to the API server's `test`.
fn json_patched(mut object: Value, operations: &Value) -> Result<Value, Refusal> {
    for operation in operations.as_array().expect("a list of operations") {
        let path = operation["path"].as_str().expect("a path");
        let done = match operation["op"].as_str().expect("an operation") {
            "test" => object.pointer(path).unwrap_or(&Value::Null) == &operation["value"],
            "add" => add(&mut object, path, &operation["value"]),
            "remove" => remove(&mut object, path),
            other => panic!("the double knows no {other}"),
        };
        if !done {
            return Err((422, status(422, "Invalid")));
        }
    }
    Ok(object)
}

fn add(object: &mut Value, path: &str, value: &Value) -> bool {
    let (parent, name) = parent(object, path);
    match parent {
        Some(Value::Object(map)) => drop(map.insert(name, value.clone())),
        Some(Value::Array(list)) if name == "-" => list.push(value.clone()),
        _ => return false,
    }
    true
}

fn remove(object: &mut Value, path: &str) -> bool {
    let (parent, name) = parent(object, path);
    match parent {
        Some(Value::Object(map)) => map.remove(&name).is_some(),
        Some(Value::Array(list)) => {
            let at = name.parse().ok().filter(|at| *at < list.len());
            at.map(|at: usize| list.remove(at)).is_some()
        }
        _ => false,
    }
}

fn parent<'o>(object: &'o mut Value, path: &str) -> (Option<&'o mut Value>, String) {
    let (parent, name) = path.rsplit_once('/').expect("paths begin with a slash");
    (object.pointer_mut(parent), name.replace("~1", "/").replace("~0", "~"))
}

/// A status has these parts: `loadBalancer`, and each condition by its type.
fn parts(status: &Value) -> Map<String, Value> {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let of_condition = |condition: Value| (condition["type"].as_str().expect("a type").to_owned(), condition);
    let balancer = status["loadBalancer"]["ingress"].is_array().then(|| status["loadBalancer"].clone());
    balancer
        .map(|balancer| ("loadBalancer".to_owned(), balancer))
        .into_iter()
        .chain(conditions.into_iter().map(of_condition))
        .collect()
}

/// One owner, or several.
fn names(owners: &Value) -> BTreeSet<String> {
    let one = owners.as_str().map(String::from);
    let several = owners.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from);
    one.into_iter().chain(several).collect()
}

/// What a manager owned alone and leaves out is removed; what is another's and differs is a conflict, and what is the
/// same is both's.
fn applied(mut object: Value, request: &Request) -> Result<Value, Refusal> {
    assert_eq!(request.subresource.as_deref(), Some("status"), "the double applies statuses only");
    if object["metadata"]["uid"] != request.body["metadata"]["uid"] {
        return Err((409, status(409, "Conflict")));
    }
    let manager = request.query["fieldManager"].as_str();
    let (mut parts, wanted) = (parts(&object["status"]), parts(&request.body["status"]));
    let mut owners = object.pointer(OWNERS).and_then(Value::as_object).cloned().unwrap_or_default();
    let differs = |(part, value): (&String, &Value)| {
        let others = owners.get(part).is_some_and(|owner| names(owner).iter().any(|owner| owner != manager));
        others && parts.get(part) != Some(value)
    };
    if wanted.iter().any(differs) {
        let mut refused = status(409, "Conflict");
        refused["details"] = json!({ "causes": [{ "reason": "FieldManagerConflict", "message": "conflict", "field": "status" }] });
        return Err((409, refused));
    }
    for (part, owner) in &mut owners {
        let others: BTreeSet<String> = names(owner).into_iter().filter(|name| name != manager).collect();
        if others.is_empty() && !wanted.contains_key(part) {
            parts.remove(part);
        }
        *owner = json!(others);
    }
    for (part, value) in wanted {
        let mut all = owners.get(&part).map(names).unwrap_or_default();
        all.insert(manager.to_owned());
        owners.insert(part.clone(), json!(all));
        parts.insert(part, value);
    }
    owners.retain(|_, owner| !names(owner).is_empty());
    let balancer = parts.remove("loadBalancer").unwrap_or_else(|| json!({}));
    object["status"] = json!({ "loadBalancer": balancer, "conditions": parts.into_iter().map(|(_, value)| value).collect::<Vec<_>>() });
    object["metadata"]["ownersOfStatus"] = owners.into();
    Ok(object)
}

/// What a write does, for people: `shop/web +finalizer`, `shop/web status[203.0.113.10]`, `shop/web (Reason)`; with the
/// code of what was refused.
pub fn in_words(request: &Request, code: u16) -> String {
    let Request { kind, key, body, .. } = request;
    let refused = if code == 200 { String::new() } else { format!(" !{code}") };
    if kind == "events" {
        let about = &body["regarding"];
        let [name, reason] = [&about["name"], &body["reason"]].map(|v| v.as_str().unwrap());
        let within = about["namespace"].as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        return format!("{within}{name} ({reason}){refused}");
    }
    let what = match request.patch.as_str() {
        "apply-patch+yaml" => {
            let entries = body["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
            let ips: Vec<_> =
                entries.iter().map(|entry| entry["ip"].as_str().unwrap_or("?").to_owned()).collect();
            format!("status[{}]", ips.join(","))
        }
        _ if kind != "services" => format!("{kind} {}", request.verb),
        _ => {
            let adds =
                body.as_array().is_some_and(|list| list.iter().any(|operation| operation["op"] == "add"));
            if adds { "+finalizer".into() } else { "-finalizer".into() }
        }
    };
    format!("{key} {what}{refused}")
}
