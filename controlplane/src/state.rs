//! What should be, what is, and what to do about the difference: pure, without I/O and without a clock.
//!
//! ```text
//!         ConfigLoaded, ConfigRefused, Rebalanced      DataplaneStatus, Acknowledged, Rejected, Disconnected
//! source, roster ─────────────────────────────→ State ←────────────────────────────────────────── dataplane
//!                                                 │ Effects { publish, notices }
//! ```
//!
//! Of the dataplane, [`State`] believes only what it says of itself: it is in agreement when the instance
//! that acknowledged the wanted generation is the one that answers, and it still names that generation.
//! In every other case the whole snapshot is sent again, which is always safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shunt_api::snapshot::{Ack, Snapshot};
use shunt_api::status::{ConfigProblem, DataplaneStatus};
use tracing::Level;

/// Until a refused snapshot is tried again: what was in its way, such as a missing NIC, may have gone.
const RETRY_REJECTED: Duration = Duration::from_secs(5);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The source is valid.
    ConfigLoaded {
        /// What to serve for it; its generation does not matter.
        snapshot: Box<Snapshot>,
        /// What is allowed but hardly meant.
        warnings: Vec<ConfigProblem>,
    },
    /// The same configuration leads to another snapshot, because backends are otherwise; its generation does not matter.
    Rebalanced(Box<Snapshot>),
    /// The source is not.
    ConfigRefused(ConfigProblem),
    /// The dataplane answered.
    DataplaneStatus(Box<DataplaneStatus>),
    /// Every worker forwards by this snapshot.
    Acknowledged(Ack, Arc<Snapshot>),
    /// The dataplane refused a generation.
    Rejected {
        /// The one refused.
        generation: u64,
        /// In the dataplane's words.
        reason: String,
    },
    /// The dataplane did not answer; the text says why and what to do.
    Disconnected(String),
}

/// What to do about it.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent to the dataplane, in place of any earlier one that has not been sent yet.
    pub publish: Option<Arc<Snapshot>>,
    /// To be logged.
    pub notices: Vec<Notice>,
}

/// A line of the log. Each is told at a transition, not at every try.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub level: Level,
    /// One sentence.
    pub text: String,
}

/// Whether the dataplane can be relied on to do what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agreement {
    /// It has acknowledged nothing yet.
    #[default]
    Nothing,
    /// It serves, and has acknowledged the last it was told, or refused it.
    Held,
    /// It owes an acknowledgement, or is away.
    Owed {
        /// For so long, and has acknowledged nothing else meanwhile.
        since: Instant,
    },
}

/// What should be and what is.
#[derive(Debug, Default)]
pub struct State {
    /// The snapshot that should be served; `None` before the first good configuration.
    wanted: Option<Arc<Snapshot>>,
    config_problem: Option<ConfigProblem>,
    dataplane: Dataplane,
    acknowledged: Option<Acknowledged>,
    exchange: Exchange,
    agreement: Agreement,
    /// Generation and reason of the refusal last logged.
    refusal_told: Option<(u64, String)>,
    /// When the dataplane was last seen to serve what somebody else sent.
    overwritten_at: Option<Instant>,
}

/// How long after that another control plane is suspected: two that fight overwrite each other every second.
const SUSPICION: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Dataplane {
    Connected(Box<DataplaneStatus>),
    Disconnected { reason: String, told: bool },
}

impl Default for Dataplane {
    fn default() -> Self {
        Self::Disconnected { reason: "shunt-dataplane was not asked yet".into(), told: false }
    }
}

/// What the dataplane last agreed to.
#[derive(Debug)]
struct Acknowledged {
    instance: u64,
    ack: Ack,
    snapshot: Arc<Snapshot>,
}

/// What became of the snapshot last published.
#[derive(Debug, Default)]
enum Exchange {
    #[default]
    Idle,
    Sent,
    Rejected {
        reason: String,
        retry_at: Instant,
    },
}

impl State {
    /// Takes in an event.
    pub fn apply(&mut self, event: Event, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let acknowledges = matches!(event, Event::Acknowledged(..)) && self.dataplane().is_some();
        match event {
            Event::ConfigLoaded { snapshot, warnings } => {
                self.config_loaded(*snapshot, &warnings, &mut effects);
            }
            Event::Rebalanced(snapshot) => self.rebalanced(*snapshot, &mut effects),
            Event::ConfigRefused(problem) => self.config_refused(problem, &mut effects),
            Event::DataplaneStatus(status) => self.dataplane_status(status, now, &mut effects),
            Event::Acknowledged(ack, snapshot) => self.acknowledged(ack, snapshot, &mut effects),
            Event::Rejected { generation, reason } => self.rejected(generation, reason, now, &mut effects),
            Event::Disconnected(reason) => self.disconnected(reason, &mut effects),
        }
        self.agreement = match self.agreement {
            _ if self.served().is_some() && !self.awaits_answer() => Agreement::Held,
            before @ (Agreement::Nothing | Agreement::Owed { .. }) if !acknowledges => before,
            _ => Agreement::Owed { since: now },
        };
        effects
    }

    /// Whether the dataplane can be relied on.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Generation of the snapshot that should be served; 0 before the first good configuration.
    pub fn generation(&self) -> u64 {
        self.wanted.as_ref().map_or(0, |snapshot| snapshot.generation)
    }

    /// Why the source as it is now is not what is served.
    pub fn config_problem(&self) -> Option<&ConfigProblem> {
        self.config_problem.as_ref()
    }

    /// What the dataplane last said of itself, if it answers.
    pub fn dataplane(&self) -> Option<&DataplaneStatus> {
        match &self.dataplane {
            Dataplane::Connected(status) => Some(status),
            Dataplane::Disconnected { .. } => None,
        }
    }

    /// Whether the dataplane was ever asked how it is.
    pub fn was_asked(&self) -> bool {
        !matches!(self.dataplane, Dataplane::Disconnected { told: false, .. })
    }

    /// What the dataplane that answers now last agreed to.
    pub fn acknowledgement(&self) -> Option<&Ack> {
        self.agreed().map(|acknowledged| &acknowledged.ack)
    }

    /// The snapshot that the dataplane which answers now last agreed to.
    pub fn served(&self) -> Option<&Arc<Snapshot>> {
        self.agreed().map(|acknowledged| &acknowledged.snapshot)
    }

    fn agreed(&self) -> Option<&Acknowledged> {
        let instance = self.dataplane()?.instance;
        self.acknowledged.as_ref().filter(|acknowledged| acknowledged.instance == instance)
    }

    /// A snapshot is on its way, and neither taken nor refused yet.
    pub fn awaits_answer(&self) -> bool {
        matches!(self.exchange, Exchange::Sent)
    }

    /// Why the dataplane does not serve the wanted generation; `None` when it does.
    pub fn dataplane_problem(&self) -> Option<String> {
        if let Dataplane::Disconnected { reason, .. } = &self.dataplane {
            return Some(reason.clone());
        }
        let generation = self.generation();
        match &self.exchange {
            Exchange::Idle | Exchange::Sent if self.overwritten_at.is_some() => Some(
                "something else sends snapshots to the same dataplane; is a second shunt-controlplane running? end one"
                    .to_owned(),
            ),
            Exchange::Idle => None,
            Exchange::Sent => Some(format!("generation {generation} is sent but not acknowledged yet")),
            Exchange::Rejected { reason, .. } => {
                Some(format!("generation {generation} was refused, and until it is mended no change takes effect, of health neither: {reason}"))
            }
        }
    }

    fn config_loaded(&mut self, snapshot: Snapshot, warnings: &[ConfigProblem], effects: &mut Effects) {
        let mended = self.config_problem.take().is_some();
        let Some(taken) = self.take(snapshot) else {
            if mended {
                effects.info("the configuration is good again, and what is served already".into());
            }
            if matches!(self.exchange, Exchange::Rejected { .. }) {
                self.publish(effects);
            }
            return;
        };
        let Snapshot { generation, services, pools, .. } = &*taken;
        effects.info(format!(
            "configuration taken as generation {generation} (services: {}, pools: {})",
            services.len(),
            pools.len()
        ));
        warnings.iter().for_each(|warning| effects.warn(warning.to_string()));
        if self.dataplane().is_some() {
            self.publish(effects);
        }
    }

    fn rebalanced(&mut self, snapshot: Snapshot, effects: &mut Effects) {
        if self.take(snapshot).is_some() && self.dataplane().is_some() {
            self.publish(effects);
        }
    }

    /// Wants a snapshot from now on, under a number of its own. `None` if it is what is wanted already.
    fn take(&mut self, mut snapshot: Snapshot) -> Option<Arc<Snapshot>> {
        snapshot.generation = self.generation();
        if self.wanted.as_deref() == Some(&snapshot) {
            return None;
        }
        let served = self.dataplane().and_then(|status| status.generation).unwrap_or(0);
        snapshot.generation = served.max(self.generation()) + 1;
        self.wanted.insert(Arc::new(snapshot)).clone().into()
    }

    fn config_refused(&mut self, problem: ConfigProblem, effects: &mut Effects) {
        if self.config_problem.as_ref() == Some(&problem) {
            return;
        }
        let kept = match self.generation() {
            0 => "nothing is configured until it is mended".into(),
            generation => format!("generation {generation} stays"),
        };
        effects.error(format!("configuration refused, {kept}: {problem}"));
        self.config_problem = Some(problem);
    }

    fn dataplane_status(&mut self, status: Box<DataplaneStatus>, now: Instant, effects: &mut Effects) {
        let before = self.dataplane().map(|status| status.instance);
        let same_instance = before == Some(status.instance);
        let served = status.generation;
        if !same_instance {
            effects.info(connected(&status, before.is_some()));
        }
        self.dataplane = Dataplane::Connected(status);
        self.overwritten_at = self.overwritten_at.filter(|at| now.duration_since(*at) < SUSPICION);
        if self.wanted.is_none() {
            return;
        }
        match &self.exchange {
            Exchange::Sent if same_instance => {}
            Exchange::Rejected { retry_at, .. } if same_instance && now < *retry_at => {}
            _ if self.in_agreement() => self.exchange = Exchange::Idle,
            exchange => {
                if same_instance && matches!(exchange, Exchange::Idle) {
                    let serves =
                        served.map_or("nothing".to_owned(), |generation| format!("generation {generation}"));
                    effects.warn(format!("the dataplane serves {serves}; sending ours again"));
                    if served.is_some() {
                        self.overwritten_at = Some(now);
                    }
                }
                self.number_above(served);
                self.publish(effects);
            }
        }
    }

    /// The dataplane that answers now agreed to the wanted generation, and still serves it.
    fn in_agreement(&self) -> bool {
        let generation = self.generation();
        let served = self.dataplane().and_then(|status| status.generation);
        served == Some(generation) && self.acknowledgement().is_some_and(|ack| ack.generation == generation)
    }

    /// Makes the wanted generation larger than one that is served but was not agreed upon.
    fn number_above(&mut self, served: Option<u64>) {
        let generation = self.generation();
        if let (Some(served), Some(wanted)) = (served, &mut self.wanted)
            && served >= generation
        {
            Arc::make_mut(wanted).generation = served + 1;
        }
    }

    fn publish(&mut self, effects: &mut Effects) {
        self.exchange = Exchange::Sent;
        effects.publish.clone_from(&self.wanted);
    }

    fn acknowledged(&mut self, ack: Ack, snapshot: Arc<Snapshot>, effects: &mut Effects) {
        let Some(instance) = self.dataplane().map(|status| status.instance) else { return };
        effects.info(format!("the dataplane forwards by generation {}", ack.generation));
        for setting in &ack.restart_needed {
            effects.warn(format!("takes effect when shunt-dataplane restarts: {setting}"));
        }
        if ack.generation == self.generation() {
            self.exchange = Exchange::Idle;
        }
        self.acknowledged = Some(Acknowledged { instance, ack, snapshot });
    }

    fn rejected(&mut self, generation: u64, reason: String, now: Instant, effects: &mut Effects) {
        let outdated = generation != self.generation();
        if outdated || self.dataplane().is_none() {
            return;
        }
        let refusal = Some((generation, reason.clone()));
        if self.refusal_told != refusal {
            effects.error(format!("the dataplane refused generation {generation}: {reason}"));
            self.refusal_told = refusal;
        }
        self.exchange = Exchange::Rejected { reason, retry_at: now + RETRY_REJECTED };
    }

    fn disconnected(&mut self, reason: String, effects: &mut Effects) {
        let told = matches!(self.dataplane, Dataplane::Disconnected { told: true, .. });
        if !told {
            effects.warn(reason.clone());
        }
        self.dataplane = Dataplane::Disconnected { reason, told: true };
        self.exchange = Exchange::Idle;
    }
}

fn connected(status: &DataplaneStatus, before: bool) -> String {
    let again = if before { "the dataplane restarted" } else { "the dataplane answers" };
    let serves = match status.generation {
        Some(generation) => format!("serves generation {generation}"),
        None => "serves nothing yet".into(),
    };
    format!("{again}: version {}, {serves}", status.version)
}

impl Effects {
    fn info(&mut self, text: String) {
        self.notices.push(Notice { level: Level::INFO, text });
    }

    fn warn(&mut self, text: String) {
        self.notices.push(Notice { level: Level::WARN, text });
    }

    fn error(&mut self, text: String) {
        self.notices.push(Notice { level: Level::ERROR, text });
    }
}

#[cfg(test)]
mod tests;
