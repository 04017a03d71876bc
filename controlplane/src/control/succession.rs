//! What becomes of clusters when the configuration is read anew. Pure; called by [`super::Control`] at a reload.

use shunt_api::config::Kubernetes;
use tracing::Level;

use crate::journal::Happening;
use crate::kubernetes::subject;
use crate::kubernetes::wants::Name;

/// What clusters were called before, and what they are called now: one is known by its kubeconfig, or else by its name.
pub fn carried_over(before: &[Kubernetes], now: &[Kubernetes]) -> Vec<(Name, Name)> {
    let by_kubeconfig = |now: &Kubernetes| before.iter().find(|before| before.kubeconfig == now.kubeconfig);
    let gone_on: Vec<&Name> = now.iter().filter_map(by_kubeconfig).map(|before| &before.name).collect();
    let of = |now: &Kubernetes| {
        let by_name = || Some(&now.name).filter(|name| !gone_on.contains(name));
        let before = by_kubeconfig(now).map(|before| &before.name).or_else(by_name)?;
        Some((before.clone(), now.name.clone()))
    };
    now.iter().filter_map(of).collect()
}

/// Whose Services nobody cleans up from now on, because they bear the mark of a class that nobody looks for.
pub fn left_behind<'c>(
    before: &'c [Kubernetes],
    now: &'c [Kubernetes],
    carried: &'c [(Name, Name)],
) -> impl Iterator<Item = Happening> + 'c {
    before.iter().filter_map(|before| {
        let name = carried.iter().find(|(old, _)| *old == before.name).map(|(_, new)| new);
        let now = now.iter().find(|now| Some(&now.name) == name);
        let what = match now {
            Some(now) if now.class == before.class => return None,
            Some(now) => format!("is served by class {} instead of {}", now.class, before.class),
            None => "is no longer configured".to_owned(),
        };
        let text = format!(
            "{what}; Services of before keep their finalizer, and cannot be deleted: release them as docs/kubernetes.md \
             says under Leaving"
        );
        Some(Happening { level: Level::WARN, subject: subject(&before.name), text, reason: None })
    })
}
