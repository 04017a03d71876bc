//! The kind `ShuntPool`: pools of addresses that a cluster defines itself. What the API server checks by the rules in
//! its schema is checked again, and more, when a pool is read: `shunt_api::config::manifest` judges.
//!
//! `BLESS=1 cargo test -p shunt-controlplane shunt_pool` writes the definition to `deploy/kubernetes/crds/`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Where Services get addresses from.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shunt.dev",
    version = "v1alpha1",
    kind = "ShuntPool",
    status = "ShuntPoolStatus",
    derive = "PartialEq",
    doc = "A pool of addresses that Services of type LoadBalancer get theirs from.",
    validation = Rule::new("!self.metadata.name.contains('.') && self.metadata.name.size() <= 63")
        .message("the name is no DNS label; write small letters, digits and - inside, at most 63"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Auto", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority", priority = 1),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!self.avoidEdges || self.addresses.exists(address, !isIP(address) || \
     !(address.endsWith('.0') || address.endsWith('.255')))"
).message(
    "every address of the pool ends in .0 or .255, which are not given; add avoidEdges: false, or others"
))]
pub struct ShuntPoolSpec {
    /// Prefixes such as `198.51.100.0/24`, ranges such as `198.51.100.10-198.51.100.20`, and addresses, of either
    /// family. No other pool may have any of these addresses.
    #[schemars(schema_with = "schema::addresses")]
    pub addresses: Vec<String>,
    /// Whether Services that name neither this pool nor an address get one from it.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Of pools that would do, the one with the highest is used.
    #[serde(default)]
    #[schemars(schema_with = "schema::priority")]
    pub priority: u32,
    /// For Services of these namespaces, and of those that namespaceSelector selects; for all without both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Option<Vec<String>>,
    /// Labels that a namespace must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub namespace_selector: Option<BTreeMap<String, String>>,
    /// Labels that a Service must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub service_selector: Option<BTreeMap<String, String>>,
    /// Leaves out IPv4 addresses that end in .0 and .255.
    #[serde(default = "yes")]
    pub avoid_edges: bool,
}

/// What became of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShuntPoolStatus {
    /// `Accepted`: whether Services get addresses from it, and why not.
    #[serde(default)]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

/// Schemas that say more than a type does.
mod schema {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde_json::{Value, json};
    use shunt_api::config::{MANIFEST_POOL_NAMESPACES_MAX, MANIFEST_POOL_RANGES_MAX, POOL_PRIORITY};

    /// Two IPv6 addresses in full with ` - ` between, and a little.
    const ADDRESS_LENGTH_MAX: usize = 83;
    /// Selectors have a handful.
    const LABELS_MAX: usize = 32;
    /// Longest prefix of a label's key, and longest name behind it.
    const LABEL_KEY_LENGTH_MAX: usize = 253 + 1 + 63;
    /// No VIP can come from these. IPv4 in IPv6's form the API server takes for no address at all.
    const UNUSABLE: &str = "['0.0.0.0/8', '127.0.0.0/8', '224.0.0.0/4', '255.255.255.255/32', '::/128', '::1/128', \
         'fe80::/10', 'ff00::/8']";

    /// That a range ends before it begins, the rules cannot say, nor that ranges overlap: there is no order among
    /// addresses in CEL. The control plane refuses those pools.
    pub fn addresses(_: &mut SchemaGenerator) -> Schema {
        let (first, last) =
            ("self.substring(0, self.indexOf('-')).trim()", "self.substring(self.indexOf('-') + 1).trim()");
        let range = format!("self.contains('-') && isIP({first}) && isIP({last})");
        let unusable = "no VIP can come from this (unspecified, loopback, multicast, broadcast or link-local); write \
            unicast addresses that are routed to the boxes";
        let rules = [
            (
                format!("isCIDR(self) || isIP(self) || ({range})"),
                "this is no range of addresses; write a prefix such as 198.51.100.0/24, a range such as \
                 198.51.100.10-198.51.100.20, or an address",
            ),
            (
                "!isCIDR(self) || cidr(self) == cidr(self).masked()".into(),
                "the prefix has host bits; write it without, or the address alone",
            ),
            (
                format!("!({range}) || ip({first}).family() == ip({last}).family()"),
                "the two addresses are of two families; write a range for each",
            ),
            (
                format!(
                    "!isCIDR(self) || {UNUSABLE}.all(block, !cidr(block).containsCIDR(self) && \
                     !cidr(self).containsCIDR(block))"
                ),
                unusable,
            ),
            (format!("!isIP(self) || {UNUSABLE}.all(block, !cidr(block).containsIP(self))"), unusable),
            (
                format!(
                    "!({range}) || {UNUSABLE}.all(block, !cidr(block).containsIP({first}) && \
                     !cidr(block).containsIP({last}))"
                ),
                unusable,
            ),
        ];
        json_schema!({
            "type": "array", "minItems": 1, "maxItems": MANIFEST_POOL_RANGES_MAX, "x-kubernetes-list-type": "set",
            "items": { "type": "string", "maxLength": ADDRESS_LENGTH_MAX, "x-kubernetes-validations": validations(&rules) },
        })
    }

    pub fn priority(_: &mut SchemaGenerator) -> Schema {
        let (least, most) = (POOL_PRIORITY.start(), POOL_PRIORITY.end());
        json_schema!({ "type": "integer", "format": "int32", "minimum": least, "maximum": most, "default": 0 })
    }

    pub fn namespaces(_: &mut SchemaGenerator) -> Schema {
        let label = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
        json_schema!({
            "type": "array", "nullable": true, "minItems": 1, "maxItems": MANIFEST_POOL_NAMESPACES_MAX,
            "x-kubernetes-list-type": "set",
            "items": { "type": "string", "maxLength": 63, "pattern": label },
        })
    }

    pub fn selector(_: &mut SchemaGenerator) -> Schema {
        let rules = [
            (
                format!(
                    "self.all(key, key.size() <= {LABEL_KEY_LENGTH_MAX} && \
                     !format.qualifiedName().validate(key).hasValue())"
                ),
                "this is not the key of a label; write one such as team or example.net/team",
            ),
            (
                "self.all(key, !format.labelValue().validate(self[key]).hasValue())".into(),
                "this is not the value of a label; write letters, digits, and -, _ and . inside, at most 63",
            ),
        ];
        json_schema!({
            "type": "object", "nullable": true, "minProperties": 1, "maxProperties": LABELS_MAX,
            "additionalProperties": { "type": "string", "maxLength": 63 },
            "x-kubernetes-validations": validations(&rules),
        })
    }

    /// One of each type, so that whoever applies one leaves others alone. An item is a [`Condition`](super::Condition),
    /// written out: the schemas of all that Kubernetes has would be compiled for this one.
    pub fn conditions(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                "properties": {
                    "type": text("What is said of the pool: Accepted."),
                    "status": text("True, False or Unknown."),
                    "reason": text("Why, in one word."),
                    "message": text("Why, in words for people, and what to do."),
                    "observedGeneration": {
                        "type": "integer", "format": "int64",
                        "description": "The metadata.generation that this was said of.",
                    },
                    "lastTransitionTime": {
                        "type": "string", "format": "date-time",
                        "description": "Since when the status is what it is.",
                    },
                },
            },
        })
    }

    fn text(description: &str) -> Value {
        json!({ "type": "string", "description": description })
    }

    fn validations(rules: &[(String, &str)]) -> Vec<Value> {
        rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use kube::CustomResourceExt;

    use super::*;

    #[test]
    fn the_definition_that_is_shipped_is_of_this_type() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/crds/shuntpools.yaml");
        let definition = serde_saphyr::to_string(&ShuntPool::crd()).unwrap();
        let text =
            format!("# Made from controlplane/src/kubernetes/shunt_pool.rs, which says how.\n{definition}");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == text, "{} differs from the type (BLESS=1 renews it)", path.display());
    }

    #[test]
    fn a_pool_is_written_so_that_it_can_be_judged() {
        let spec = |text: &str| serde_json::from_str::<ShuntPoolSpec>(text).unwrap();
        let pool = ShuntPool::new("least", spec(r#"{"addresses": ["198.51.100.0/24"], "namespaces": null}"#));
        let read = shunt_api::config::manifest::read(&serde_json::to_string(&pool).unwrap(), "f").unwrap();
        let expected =
            shunt_api::address_pool::AddressPool::new("least", vec!["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(read.pools, [expected]);
    }
}
