use std::time::Duration;

use shunt_api::compile::compile;
use shunt_api::snapshot::FleetKey;

use super::*;
use crate::health::{Health, Transition};

const SECOND: Duration = Duration::from_secs(1);

/// Two services over a pool of `a` and `b`, and one over a pool of `a` and `c`, all checked by the same question.
fn config(pool: &str, service: &str) -> Arc<Config> {
    let text = format!(
        r#"
        nic = [{{ name = "eth1" }}]
        pools.web = {{ check = "tcp", {pool} backends = [
            {{ name = "a", address = "10.0.0.1" }}, {{ name = "b", address = "10.0.0.2" }} ] }}
        pools.other = {{ check = "tcp", {pool} backends = [
            {{ name = "a", address = "10.0.0.1" }}, {{ name = "c", address = "10.0.0.3", mode = "ipip" }} ] }}
        [[service]]
        name = "web"
        vip = "203.0.113.10"
        ports = ["tcp/80"]
        pool = "web"
        [[service]]
        name = "other"
        vip = "203.0.113.10"
        ports = ["tcp/81"]
        pool = "other"
        {service}
        "#
    );
    Arc::new(Config::parse(&text, "f").unwrap_or_else(|problem| panic!("{problem}")))
}

struct World {
    roster: Roster,
    now: Instant,
}

impl World {
    fn new(config: &Arc<Config>) -> Self {
        Self::with(config, Memory::default())
    }

    fn with(config: &Arc<Config>, memory: Memory) -> Self {
        let mut world = Self { roster: Roster::new(memory), now: Instant::now() };
        assert!(world.load(config), "the first is a change");
        world
    }

    fn load(&mut self, config: &Arc<Config>) -> bool {
        self.roster.load(Arc::clone(config), compile(config, FleetKey([1; 16])))
    }

    /// Every probe of a backend has this result.
    fn answer(&mut self, backend: u8, health: Health) {
        let backend = IpAddr::from([10, 0, 0, backend]);
        let served = self.roster.configured.as_ref().unwrap().whole.probes.clone();
        let watches = self.roster.watches(&served, &HashMap::new());
        let of_backend = watches.into_iter().filter(|watch| watch.subject.backend == backend);
        let event = |watch: Watch| HealthEvent {
            watch: Arc::new(watch),
            transition: Transition {
                from: Health::Unknown,
                to: health,
                reason: "so it is".into(),
                at: self.now,
            },
        };
        self.roster.observe(of_backend.map(event).collect());
    }

    fn drain(&mut self, backend: &str, pool: Option<&str>, drained: bool) -> Result<(), String> {
        let request = DrainRequest { backend: backend.into(), pool: pool.map(Into::into), drained };
        self.roster.set_drained(&request)
    }

    /// Names and weights by service, and what is told.
    fn balance(&mut self) -> ([String; 2], Vec<String>) {
        let Balance { snapshot, happenings } = self.roster.balance(self.now).unwrap();
        let of = |service: usize| {
            let pool = &snapshot.pools[snapshot.services[service].pool as usize];
            let backends = pool.backends.iter().map(|backend| format!("{}:{}", backend.name, backend.weight));
            backends.collect::<Vec<_>>().join(" ")
        };
        let told = happenings.into_iter().map(|Happening { subject, text, reason, .. }| match reason {
            Some(reason) => format!("{subject}: {text} ({reason})"),
            None => format!("{subject}: {text}"),
        });
        ([of(0), of(1)], told.collect())
    }

    fn check(&mut self, web: &str, other: &str, told: &[&str]) {
        assert_eq!(
            self.balance(),
            ([web.to_owned(), other.to_owned()], told.iter().map(|&s| s.into()).collect())
        );
    }
}

#[test]
fn what_is_told_and_balanced_follows_from_checks() {
    let mut world = World::new(&config("", ""));
    world.check("a:1 b:1", "a:1 c:1", &[]);
    world.answer(1, Health::Up);
    let up = "backend a of pool web: up (so it is; asked tcp 203.0.113.10:80 through the service)";
    let up_too = "backend a of pool other: up (so it is; asked tcp 203.0.113.10:81 through the service)";
    world.check("a:1 b:1", "a:1 c:1", &[up, up_too]);
    world.check("a:1 b:1", "a:1 c:1", &[]);
    world.answer(2, Health::Down);
    let down = "backend b of pool web: down (so it is; asked tcp 203.0.113.10:80 through the service)";
    world.check("a:1", "a:1 c:1", &[down]);
    assert_eq!(world.roster.problems(), [""; 0]);
    world.answer(1, Health::Down);
    let lines = [
        up.replace("up", "down"),
        up_too.replace("up", "down"),
        "service web: all backends are down, and flows go to all of them as if they were up \
         (when_all_down = \"use-all\")"
            .into(),
    ];
    world.check("a:1 b:1", "c:1", &lines.each_ref().map(String::as_str));
    assert!(world.roster.problems()[0].starts_with("service web: all backends are down"));
    world.answer(2, Health::Up);
    world.check("b:1", "c:1", &[&down.replace("down", "up"), "service web: has backends again"]);
}

#[test]
fn what_is_alike_in_several_pools_is_told_once() {
    let mut world = World::new(&config("", ""));
    world.drain("10.0.0.1", None, true).unwrap();
    world.check("a:0 b:1", "a:0 c:1", &["backend a of pools web, other: draining"]);
    world.drain("a", Some("other"), false).unwrap();
    world.check("a:0 b:1", "a:1 c:1", &["backend a of pool other: no longer draining"]);
    let error = world.drain("b", Some("other"), true).unwrap_err();
    assert!(error.starts_with("there is no backend of pool `other` of name or address `b`"), "{error}");
}

#[test]
fn a_change_of_the_configuration_forgets_nothing_of_what_stays() {
    let mut world = World::new(&config("", ""));
    world.answer(2, Health::Down);
    world.drain("c", None, true).unwrap();
    let before = world.balance().0;
    assert_eq!(before, ["a:1", "a:1 c:0"]);
    assert!(!world.load(&config("", "")), "the same again");
    world.check("a:1", "a:1 c:0", &[]);
    // Another interval is another check, of which nothing is known; who was down still counts as down.
    let slower = Config::parse(
        r#"
        nic = [{ name = "eth1" }]
        pools.web = { check = { type = "tcp", interval = "5s" }, backends = [
            { name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2" } ] }
        service = [{ name = "web", vip = "203.0.113.10", ports = ["tcp/80"], pool = "web" },
            { name = "also", vip = "203.0.113.10", ports = ["tcp/82"], pool = "web" }]
        "#,
        "f",
    );
    assert!(world.load(&Arc::new(slower.unwrap())));
    let left = "backend 10.0.0.3 of pool other: no longer draining (it left the configuration; drain it again if it returns)";
    world.check("a:1", "a:1", &[left]);
    assert_eq!(
        world.roster.memory().down,
        BTreeSet::from([Member { pool: "web".into(), backend: "10.0.0.2".parse().unwrap() }])
    );
}

#[test]
fn a_restart_knows_who_was_down_or_drained_until_checks_decide() {
    let mut world = World::new(&config("", ""));
    world.answer(2, Health::Down);
    world.drain("c", None, true).unwrap();
    world.balance();
    let mut again = World::with(&config("", ""), world.roster.memory());
    again.check("a:1", "a:1 c:0", &["backend c of pool other: draining"]);
    again.answer(2, Health::Up);
    let (served, told) = again.balance();
    assert_eq!((served, told.len()), (["a:1 b:1".into(), "a:1 c:0".into()], 1));
}

#[test]
fn a_share_grows_step_by_step_after_coming_up() {
    let mut world = World::new(&config("slow_start = \"10s\",", ""));
    assert_eq!(world.roster.next_step(world.now), None);
    world.answer(2, Health::Down);
    world.balance();
    world.answer(2, Health::Up);
    assert_eq!(world.balance().0[0], "a:10 b:1");
    assert_eq!(world.roster.next_step(world.now), Some(world.now + SECOND));
    world.now += 5 * SECOND;
    assert_eq!(world.balance().0[0], "a:10 b:6");
    world.now += 5 * SECOND;
    assert_eq!(world.balance().0[0], "a:1 b:1");
    assert_eq!(world.roster.next_step(world.now), None);
}

#[test]
fn probes_wait_for_their_way() {
    let world = World::new(&config("", ""));
    let probes = world.roster.configured.as_ref().unwrap().whole.probes.clone();
    let ways: Vec<_> = probes.iter().map(|way| (way.number, way.address.to_string(), way.mode)).collect();
    let expected = [(0, "10.0.0.1", Mode::Dr), (1, "10.0.0.2", Mode::Dr), (2, "10.0.0.3", Mode::Ipip)];
    assert_eq!(ways, expected.map(|(number, address, mode)| (number, address.to_owned(), mode)));
    assert_eq!(world.roster.watches(&[], &HashMap::new()), []);
    let hops = HashMap::from([([10, 0, 0, 3].into(), (1500, "eth1".into()))]);
    let watches = world.roster.watches(&probes[1..], &hops);
    let ways: Vec<_> =
        watches.iter().map(|watch| watch.way.clone().unwrap()).map(|way| (way.mark, way.room)).collect();
    assert_eq!(ways, [(PROBE_MARK + 1, None), (PROBE_MARK + 2, Some(1480))]);
}

#[test]
fn a_target_that_cannot_be_asked_decides_nothing() {
    let dual = Config::parse(
        r#"
        nic = [{ name = "eth1" }]
        pools.web = { check = "tcp", backends = [
            { name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2" } ] }
        service = [{ name = "web", vip = ["203.0.113.10", "2001:db8::10"], ports = ["tcp/80"], pool = "web" },
            { name = "other", vip = "203.0.113.10", ports = ["tcp/81"], pool = "web" }]
        "#,
        "f",
    );
    let mut world = World::new(&Arc::new(dual.unwrap()));
    let answer = |world: &mut World, health| {
        let served = world.roster.configured.as_ref().unwrap().whole.probes.clone();
        let watches = world.roster.watches(&served, &HashMap::new());
        let one =
            watches.into_iter().find(|watch| watch.subject.backend == IpAddr::from([10, 0, 0, 1])).unwrap();
        let transition = Transition { from: Health::Unknown, to: health, reason: "so".into(), at: world.now };
        world.roster.observe(vec![HealthEvent { watch: Arc::new(one), transition }]);
        world.balance().0[0].clone()
    };
    assert_eq!(answer(&mut world, Health::Down), "b:1");
    assert_eq!(answer(&mut world, Health::Up), "a:1 b:1", "although nothing is known of its other targets");
}

#[test]
fn whoever_leaves_the_configuration_is_told_to_drain_no_longer() {
    let mut world = World::new(&config("", ""));
    world.drain("c", None, true).unwrap();
    world.balance();
    let without = Config::parse("nic = [{ name = \"eth1\" }]", "f").unwrap();
    world.load(&Arc::new(without));
    let Balance { happenings, .. } = world.roster.balance(world.now).unwrap();
    let told: Vec<_> = happenings.iter().map(|told| format!("{}: {}", told.subject, told.text)).collect();
    assert_eq!(told, ["backend 10.0.0.3 of pool other: no longer draining"]);
    world.load(&config("", ""));
    world.check("a:1 b:1", "a:1 c:1", &[]);
}

#[test]
fn one_more_address_of_a_service_is_no_news_of_its_backends() {
    let mut world = World::new(&config("slow_start = \"10s\",", ""));
    world.answer(1, Health::Up);
    world.answer(2, Health::Down);
    world.balance();
    world.answer(2, Health::Up);
    world.balance();
    let more = r#"
        [[service]]
        name = "more"
        vip = "203.0.113.11"
        ports = ["tcp/80"]
        pool = "web"
    "#;
    world.load(&config("slow_start = \"10s\",", more));
    world.check("a:10 b:1", "a:1 c:1", &[]);
}

#[test]
fn what_is_supposed_changes_nothing() {
    let pool = config("", "");
    let mut world = World::new(&pool);
    world.answer(2, Health::Down);
    world.roster.balance(world.now);
    let before = world.roster.clone();
    let backends = |snapshot: &Snapshot| -> Vec<Vec<String>> {
        let of = |pool: &shunt_api::snapshot::Pool| {
            pool.backends.iter().map(|backend| backend.name.clone()).collect()
        };
        snapshot.pools.iter().map(of).collect()
    };
    let suppose = |other, down: &[&str]| {
        let down: Vec<String> = down.iter().map(|&name| name.to_owned()).collect();
        let supposed = world.roster.supposing(other, &down, world.now).unwrap();
        supposed.map(|(_, snapshot)| backends(&snapshot))
    };
    assert_eq!(suppose(None, &[]).unwrap(), [vec!["a"], vec!["a", "c"]]);
    assert_eq!(suppose(None, &["c"]).unwrap(), [vec!["a"], vec!["a"]]);
    assert_eq!(
        suppose(None, &["10.0.0.1"]).unwrap(),
        [vec!["a", "b"], vec!["c"]],
        "all are down: used all the same"
    );
    // Who is drained stays so: nobody is left who is meant to take flows.
    let mut drained = World { roster: world.roster.clone(), now: world.now };
    let request = DrainRequest { backend: "c".into(), drained: true, ..DrainRequest::default() };
    drained.roster.set_drained(&request).unwrap();
    let (_, snapshot) =
        drained.roster.supposing(None, &["10.0.0.1".into(), "c".into()], world.now).unwrap().unwrap();
    let weights: Vec<u16> = snapshot.pools[1].backends.iter().map(|backend| backend.weight).collect();
    assert_eq!(weights, [1, 0], "a is used although down, c is drained");
    let error = suppose(None, &["d"]).unwrap_err();
    assert_eq!(error, "there is no backend of name or address `d`; `lbctl get backends` lists them");
    // What is known of a backend holds in another file.
    let other = config("on_down = \"keep\",", "");
    let whole = compile(&other, FleetKey([1; 16]));
    assert_eq!(suppose(Some((other, whole)), &[]).unwrap(), [vec!["a", "b"], vec!["a", "c"]]);
    assert_eq!(format!("{:?}", world.roster), format!("{before:?}"));
}
