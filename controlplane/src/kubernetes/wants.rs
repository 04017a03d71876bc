//! What clusters want: as they say, or, while they do not answer after a start, as they are remembered to have said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shunt_api::status::ClusterSource;

use super::translate::wanted::{self, Wanted};

/// The name of a cluster; `None` if it has none, and then there is no other.
pub type Name = Option<String>;

/// What clusters wanted when they were last heard, for the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered(BTreeMap<Name, Arc<Wanted>>);

/// What clusters want.
#[derive(Debug, Default)]
pub struct Wants {
    served: BTreeMap<Name, Want>,
    /// By the process before; what of it is not served yet.
    remembered: Remembered,
    /// Clusters that neither said anything nor are remembered, and are not waited for any longer.
    done_without: BTreeSet<Name>,
}

#[derive(Debug)]
struct Want {
    wanted: Arc<Wanted>,
    /// The cluster said so to this process.
    live: bool,
}

impl Wants {
    /// Nothing is known but for this.
    pub fn new(remembered: Remembered) -> Self {
        Self { remembered, ..Self::default() }
    }

    /// Goes on with these clusters alone: what each was called before, and what it is called now.
    pub fn carry_over(&mut self, clusters: &[(Name, Name)]) {
        let mut before = std::mem::take(self);
        for (old, new) in clusters {
            let called = |wanted: Arc<Wanted>| match old == new {
                true => wanted,
                false => Arc::new(wanted.renamed(old.as_deref(), new.as_deref())),
            };
            if let Some(Want { wanted, live }) = before.served.remove(old) {
                self.served.insert(new.clone(), Want { wanted: called(wanted), live });
            }
            if let Some(wanted) = before.remembered.0.remove(old) {
                self.remembered.0.insert(new.clone(), called(wanted));
            }
            if before.done_without.remove(old) {
                self.done_without.insert(new.clone());
            }
        }
    }

    /// Takes in what a cluster says.
    pub fn set(&mut self, name: &Name, wanted: Wanted) {
        self.remembered.0.remove(name);
        self.served.insert(name.clone(), Want { wanted: Arc::new(wanted), live: true });
    }

    /// Goes by what is remembered of a cluster that has not said anything. Whether there is such a memory.
    pub fn recall(&mut self, name: &Name) -> bool {
        let Some(wanted) = self.remembered.0.remove(name) else { return false };
        self.served.insert(name.clone(), Want { wanted, live: false });
        true
    }

    /// Waits for a cluster no longer: until it says something it wants nothing. Whether it was waited for.
    pub fn do_without(&mut self, name: &Name) -> bool {
        !self.knows(name) && self.done_without.insert(name.clone())
    }

    /// It is known, from itself or from memory, what a cluster wants.
    pub fn knows(&self, name: &Name) -> bool {
        self.served.contains_key(name)
    }

    /// All else waits until it is known what a cluster wants.
    pub fn is_awaited(&self, name: &Name) -> bool {
        !self.knows(name) && !self.done_without.contains(name)
    }

    /// Where what is served for a cluster is from.
    pub fn source(&self, name: &Name) -> ClusterSource {
        match self.served.get(name) {
            Some(Want { live: true, .. }) => ClusterSource::Live,
            Some(Want { live: false, .. }) => ClusterSource::Memory,
            None => ClusterSource::Unknown,
        }
    }

    /// Everything that is to be served.
    pub fn merged(&self) -> Wanted {
        wanted::merged(self.served.values().map(|want| &*want.wanted))
    }

    /// What the next process should know.
    pub fn memory(&self) -> Remembered {
        let served = self.served.iter().map(|(name, want)| (name.clone(), Arc::clone(&want.wanted)));
        Remembered(self.remembered.0.clone().into_iter().chain(served).collect())
    }
}

/// One cluster in the file.
#[derive(Deserialize)]
struct Stored {
    name: Name,
    wanted: Wanted,
}

#[derive(Serialize)]
struct Storing<'w> {
    name: &'w Name,
    wanted: &'w Wanted,
}

impl Serialize for Remembered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, wanted)| Storing { name, wanted }))
    }
}

impl<'de> Deserialize<'de> for Remembered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Vec::<Stored>::deserialize(deserializer)?;
        let is_whole =
            |wanted: &Wanted| wanted.services.iter().all(|service| service.pool < wanted.pools.len());
        if stored.iter().any(|stored| !is_whole(&stored.wanted)) {
            return Err(D::Error::custom("a service has no pool"));
        }
        Ok(Self(stored.into_iter().map(|stored| (stored.name, Arc::new(stored.wanted))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use shunt_api::config::Config;

    use super::*;

    /// A service on a pool with every kind of setting that a cluster's can have.
    fn wanted(vip: &str) -> Wanted {
        let text = format!(
            r#"
            nic = [{{ name = "eth1" }}]
            [pools.p]
            backends = [{{ name = "n", address = "10.0.0.9", weight = 0 }}, {{ name = "m", address = "10.0.0.8" }}]
            check = {{ type = "http", path = "/healthz", status = ["200", "300-399"], port = 10256, interval = "500ms" }}
            slow_start = "30s"
            [[service]]
            name = "web"
            vip = "{vip}"
            ports = ["tcp/80", "udp/53"]
            source_ranges = ["192.0.2.0/24", "2001:db8::/32"]
            affinity = {{ client_ip = "60s" }}
            pool = "p"
            "#
        );
        let config = Config::parse(&text, "f").unwrap();
        Wanted { pools: config.pools, services: config.services, created_s: vec![7] }
    }

    fn name(text: &str) -> Name {
        Some(text.into())
    }

    fn vips(wants: &Wants) -> Vec<String> {
        wants.merged().services.iter().map(|service| service.vips[0].to_string()).collect()
    }

    fn remembered() -> Remembered {
        let mut wants = Wants::default();
        wants.set(&name("a"), wanted("203.0.113.1"));
        wants.set(&name("b"), wanted("203.0.113.2"));
        wants.memory()
    }

    #[test]
    fn memory_survives_its_file_as_it_was() {
        let text = serde_json::to_vec(&remembered()).unwrap();
        assert_eq!(serde_json::from_slice::<Remembered>(&text).unwrap(), remembered());
        let mut nameless = Wants::default();
        nameless.set(&None, wanted("203.0.113.3"));
        let text = serde_json::to_vec(&nameless.memory()).unwrap();
        assert_eq!(serde_json::from_slice::<Remembered>(&text).unwrap(), nameless.memory());
    }

    #[test]
    fn a_service_without_its_pool_is_refused() {
        let mut odd = wanted("203.0.113.1");
        odd.pools.clear();
        let mut wants = Wants::default();
        wants.set(&None, odd);
        let text = serde_json::to_vec(&wants.memory()).unwrap();
        let refused = serde_json::from_slice::<Remembered>(&text).unwrap_err();
        assert!(refused.to_string().starts_with("a service has no pool"), "{refused}");
    }

    #[test]
    fn memory_holds_until_the_cluster_speaks() {
        let mut wants = Wants::new(remembered());
        let source = |wants: &Wants| wants.source(&name("a"));
        assert_eq!((source(&wants), vips(&wants).len()), (ClusterSource::Unknown, 0));
        assert!(wants.recall(&name("a")));
        assert_eq!((source(&wants), vips(&wants)), (ClusterSource::Memory, vec!["203.0.113.1".into()]));
        wants.set(&name("a"), wanted("203.0.113.9"));
        assert_eq!((source(&wants), vips(&wants)), (ClusterSource::Live, vec!["203.0.113.9".into()]));
        assert!(!wants.recall(&name("a")), "what it says now holds");
        assert_eq!(vips(&wants), ["203.0.113.9"]);
    }

    #[test]
    fn what_is_remembered_but_not_used_yet_is_remembered_on_and_strangers_are_forgotten() {
        let mut wants = Wants::new(remembered());
        assert_eq!(wants.memory(), remembered());
        wants.recall(&name("a"));
        assert_eq!(wants.memory(), remembered());
        wants.carry_over(&[(name("b"), name("b"))]);
        assert!(!wants.knows(&name("a")) && wants.recall(&name("b")));
        assert_eq!(vips(&wants), ["203.0.113.2"]);
        wants.carry_over(&[]);
        assert_eq!(wants.memory(), Remembered::default());
    }

    #[test]
    fn what_a_cluster_wants_goes_with_it_when_it_is_called_otherwise() {
        let names = |wants: &Wants| {
            let Wanted { pools, services, .. } = wants.merged();
            let services = services.into_iter().map(|service| service.name);
            pools.into_iter().map(|pool| pool.name).chain(services).collect::<Vec<_>>()
        };
        let mut wants = Wants::default();
        wants.set(&None, wanted("203.0.113.1"));
        let mut before = None;
        for (now, expected) in
            [(Some("a"), ["a/p", "a/web"]), (Some("b"), ["b/p", "b/web"]), (None, ["p", "web"])]
        {
            let now = now.map(String::from);
            wants.carry_over(&[(before, now.clone())]);
            assert_eq!(
                (names(&wants), wants.source(&now)),
                (expected.map(String::from).into(), ClusterSource::Live)
            );
            before = now;
        }
        // Also what is only remembered, and that one is not waited for.
        let mut wants = Wants::new(wants.memory());
        wants.do_without(&name("c"));
        wants.carry_over(&[(None, name("d")), (name("c"), name("e"))]);
        assert!(wants.recall(&name("d")) && !wants.is_awaited(&name("e")));
        assert_eq!(names(&wants), ["d/p", "d/web"]);
    }
}
