//! Whose a Service is. What is another controller's gets no write and no event, but for taking away what was ours.
//!
//! The finalizer's name is shared with cloud providers, and the class is wiped when a Service ceases to be of type
//! `LoadBalancer`. So a Service is marked with the class that it was claimed by, together with the finalizer: what is
//! cleaned up is only ever what bears our mark.

use crate::kubernetes::facts::Service;

/// Keeps a Service from vanishing before its addresses are withdrawn (KEP-980).
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// The annotation that tells by which class the finalizer was set.
pub const MARK: &str = "shunt.dev/class";

/// Which Services are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// `spec.loadBalancerClass`.
    pub name: String,
    /// Those without a class are ours too.
    pub default_class: bool,
}

/// Type and class say that it is for us to serve, though it may be about to be deleted.
pub fn is_ours(service: &Service, class: &Class) -> bool {
    let of_class = service.class.as_ref().map_or(class.default_class, |name| *name == class.name);
    service.wants_load_balancer && of_class
}

/// It was ours, or is about to be deleted, and has to be released.
pub fn needs_cleanup(service: &Service, class: &Class) -> bool {
    if is_ours(service, class) {
        return service.deleting && (service.has_finalizer || is_marked(service, class));
    }
    is_marked(service, class)
}

/// It may have an address and be served: not before it is claimed, but a claim that got lost is only renewed.
pub fn may_be_served(service: &Service, class: &Class) -> bool {
    let claimed = service.has_finalizer || is_marked(service, class) || !service.conditions.is_empty();
    is_ours(service, class) && !service.deleting && claimed
}

/// It has our finalizer and our mark.
pub fn is_claimed(service: &Service, class: &Class) -> bool {
    service.has_finalizer && is_marked(service, class)
}

fn is_marked(service: &Service, class: &Class) -> bool {
    service.annotations.get(MARK) == Some(&class.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `type class flags`: type `lb` or `ip`; flags `f`inalizer, `m`ark, `o`ther's mark, `d`eleting.
    fn service(text: &str) -> Service {
        let words: Vec<_> = text.split(' ').collect();
        let [kind, class, flags] = words[..] else { panic!("{text}") };
        let mark = if flags.contains('m') { Some("ours") } else { flags.contains('o').then_some("other") };
        Service {
            wants_load_balancer: kind == "lb",
            class: (class != "-").then(|| class.into()),
            has_finalizer: flags.contains('f'),
            deleting: flags.contains('d'),
            annotations: mark.map(|mark| (MARK.to_owned(), mark.to_owned())).into_iter().collect(),
            ..Service::default()
        }
    }

    #[test]
    fn nothing_is_served_before_it_is_claimed() {
        let class = Class { name: "ours".into(), default_class: false };
        for (text, expected) in [
            ("lb ours .", false),
            ("lb ours f", true),
            ("lb ours m", true),
            ("lb ours fm", true),
            ("lb ours fmd", false),
            ("lb - fm", false),
            ("lb other fm", false),
            ("ip - fm", false),
        ] {
            assert_eq!(may_be_served(&service(text), &class), expected, "{text}");
        }
    }

    #[test]
    fn class_type_and_mark_decide() {
        // Whether it is ours, and whether it needs cleanup: with and without being the default.
        for (text, ours, cleanup, ours_default, cleanup_default) in [
            ("lb ours .", true, false, true, false),
            ("lb ours fm", true, false, true, false),
            ("lb ours fmd", true, true, true, true),
            ("lb ours fd", true, true, true, true),
            ("lb ours d", true, false, true, false),
            ("lb - .", false, false, true, false),
            ("lb - f", false, false, true, false),
            ("lb - fd", false, false, true, true),
            // We were the default when it was claimed.
            ("lb - fm", false, true, true, false),
            ("lb other .", false, false, false, false),
            ("lb other f", false, false, false, false),
            // It became another's while nobody looked, by way of another type.
            ("lb other fm", false, true, false, true),
            ("lb other fmd", false, true, false, true),
            ("ip - .", false, false, false, false),
            ("ip - fm", false, true, false, true),
            ("ip - m", false, true, false, true),
            ("ip - fmd", false, true, false, true),
            // Another controller's, which cleans up itself.
            ("ip - f", false, false, false, false),
            ("ip - fo", false, false, false, false),
            ("ip - fd", false, false, false, false),
        ] {
            for (default_class, ours, cleanup) in
                [(false, ours, cleanup), (true, ours_default, cleanup_default)]
            {
                let class = Class { name: "ours".into(), default_class };
                let service = service(text);
                let found = (is_ours(&service, &class), needs_cleanup(&service, &class));
                assert_eq!(found, (ours, cleanup), "{text}, default {default_class}");
            }
        }
    }
}
