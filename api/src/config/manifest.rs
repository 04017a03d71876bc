//! Pools of addresses as a cluster has them: objects of kind `ShuntPool`, in a file for `lbctl validate` or as the API
//! server gives them. What must hold for a pool is in `kubernetes/pools.rs`, for these as for those of the file.

use super::document::{Source, Table, Value};
use super::kubernetes::names;
use super::kubernetes::pools::{self, Keys, Ranges};
use super::{MANIFEST_POOL_NAMESPACES_MAX, MANIFEST_POOL_RANGES_MAX};
use crate::address_pool::AddressPool;
use crate::config::consistency::Unique;
use crate::status::ConfigProblem;

/// The group and version of the kind.
pub const API_VERSION: &str = "shunt.dev/v1alpha1";
/// The kind.
pub const KIND: &str = "ShuntPool";

/// As the cluster's objects write keys.
const KEYS: Keys = Keys {
    addresses: "addresses",
    auto_assign: "autoAssign",
    priority: "priority",
    namespaces: "namespaces",
    namespace_selector: "namespaceSelector",
    service_selector: "serviceSelector",
    avoid_edges: "avoidEdges",
    ranges_max: MANIFEST_POOL_RANGES_MAX,
    namespaces_max: MANIFEST_POOL_NAMESPACES_MAX,
};

/// What a file of manifests holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifests {
    /// Its pools, in order.
    pub pools: Vec<AddressPool>,
    /// Objects of other kinds, which are not looked at.
    pub warnings: Vec<ConfigProblem>,
}

/// Reads every document of a file in YAML, or in JSON, which is YAML. `file` is for messages.
pub fn read(text: &str, file: &str) -> Result<Manifests, ConfigProblem> {
    let source = Source::yaml(text, file);
    let documents = source.parse_yaml()?;
    let (mut found, mut ranges, mut unique) = (Manifests::default(), Ranges::default(), Unique::default());
    for document in &documents {
        let object = source.value(document).table("kind: ShuntPool, and what belongs to it")?;
        let kind = object.required("kind", KIND)?;
        if kind.text() == Some(KIND) {
            found.pools.push(pool(&object, &mut ranges, &mut unique)?);
        } else {
            found.warnings.push(kind.problem(format!("this is no {KIND}, and was not looked at")));
        }
    }
    if documents.is_empty() {
        return Err(source.problem(0, "", format!("there is no object; write one of kind {KIND}")));
    }
    ranges.refuse_overlap()?;
    Ok(found)
}

fn pool<'d>(
    object: &Table<'d>,
    ranges: &mut Ranges<'d>,
    unique: &mut Unique<'d, String>,
) -> Result<AddressPool, ConfigProblem> {
    object.allow_only(&["apiVersion", "kind", "metadata", "spec", "status"])?;
    let version = object.required("apiVersion", API_VERSION)?;
    if version.string(API_VERSION)? != API_VERSION {
        return Err(version.problem(format!("a {KIND} is of {API_VERSION}; write that")));
    }
    let metadata = object.required("metadata", "{ name: public }")?;
    let name_value = metadata.table("{ name: public }")?.required("name", "public")?;
    let name = unique.insert(names::label(&name_value, "public")?, &name_value, "a pool of this file")?;
    let spec: Value<'d> = object.required("spec", "{ addresses: [198.51.100.0/24] }")?;
    let spec = spec.table("{ addresses: [198.51.100.0/24] }")?;
    spec.allow_only(&KEYS.all())?;
    let shown = format!("{KIND} `{name}`");
    pools::pool(&spec, name, &shown, ranges, &KEYS)
}

#[cfg(test)]
mod tests;
