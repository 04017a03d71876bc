//! Reads and writes the Lease (`coordination.k8s.io/v1`). Who leads is decided in [`super::Election`]; a write is refused
//! by the API if another came first, for it bears the version that was read.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};
use shunt_api::config;
use tokio::sync::watch;
use tokio::time::timeout;

use super::fitness::Fitness;
use super::{Election, LEASE, Part, Record, Seat, Standing, Trouble};
use crate::state::Agreement;
use crate::until::now;

/// A request without an answer for so long has failed. Two of them and a pause fit between renewal and deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes part in the election by one Lease.
pub struct Candidate {
    api: Api<Lease>,
    place: config::Lease,
    election: Election,
    fitness: Fitness,
}

/// Why a round failed.
enum Failure {
    Api(Error),
    Timeout,
    /// Another wrote first: what it wrote is read next.
    Conflict,
}

impl Candidate {
    /// Has read nothing. It leads only while the dataplane can be relied on.
    pub fn new(
        client: &Client,
        place: config::Lease,
        identity: &str,
        agreement: watch::Receiver<Agreement>,
    ) -> Self {
        let api = Api::namespaced(client.clone(), &place.namespace);
        let election = Election::new(identity.into());
        Self { api, place, election, fitness: Fitness::new(agreement, now()) }
    }

    /// Stands for election for ever; `seat` is told what comes of it.
    pub async fn run(&mut self, seat: &watch::Sender<Seat>) {
        loop {
            let part = self.fitness.part(now());
            if part == Part::Leaves && self.election.pause_term(now()) {
                // Nothing more is begun from here on, so that it ends in time.
                self.show(seat, None);
            }
            let failure = self.round(part).await.err();
            let pause = self.election.pause(failure.is_none(), now());
            self.show(seat, failure);
            self.fitness.rest(part, pause).await;
        }
    }

    fn show(&self, seat: &watch::Sender<Seat>, failure: Option<Failure>) {
        let standing = self.election.standing(now());
        // While the last renewal holds, the next try may succeed.
        let leads = matches!(standing, Standing::Leads { .. });
        let trouble = failure.and_then(|failure| self.trouble(failure));
        let trouble = trouble.or_else(|| self.fitness.trouble(now())).filter(|_| !leads);
        seat.send_if_modified(|seat| seat.replace(Seat { standing, trouble }));
    }

    /// Lets another lead at once, if this box does. What fails is left to run out.
    pub async fn release(&self) {
        let Ok(Some(lease)) = within(self.api.get_opt(&self.place.name)).await else { return };
        if let Some(released) = self.election.released(&record(&lease)) {
            let _ = within(self.write(Some(lease), &released)).await;
        }
    }

    async fn round(&mut self, part: Part) -> Result<(), Failure> {
        let lease = within(self.api.get_opt(&self.place.name)).await?;
        let asked = now();
        let Some(next) = self.election.observe(lease.as_ref().map(record), part, asked, Timestamp::now())
        else {
            return Ok(());
        };
        within(self.write(lease, &next)).await?;
        self.election.wrote(next, asked);
        Ok(())
    }

    async fn write(&self, lease: Option<Lease>, next: &Record) -> Result<(), Error> {
        let params = PostParams::default();
        let Some(lease) = lease else {
            let metadata = ObjectMeta { name: Some(self.place.name.clone()), ..ObjectMeta::default() };
            let spec = Some(spec(LeaseSpec::default(), next));
            return self.api.create(&params, &Lease { metadata, spec }).await.map(drop);
        };
        let spec = Some(spec(lease.spec.unwrap_or_default(), next));
        // With its uid and version, so that neither another's write nor one that was created since is overwritten.
        let lease = Lease { spec, metadata: lease.metadata };
        self.api.replace(&self.place.name, &params, &lease).await.map(drop)
    }

    fn trouble(&self, failure: Failure) -> Option<Trouble> {
        let config::Lease { namespace, name } = &self.place;
        let lease = format!("Lease {namespace}/{name}");
        Some(match failure {
            Failure::Conflict => return None,
            Failure::Timeout => Trouble::Away(format!("{lease}: no answer within {REQUEST_TIMEOUT:?}")),
            Failure::Api(Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                Trouble::Refused(format!(
                    "{lease}: {}; run kubectl apply -k deploy/kubernetes, or see kubernetes.namespace and \
                     kubernetes.kubeconfig",
                    status.message
                ))
            }
            Failure::Api(error) => Trouble::Away(format!("{lease}: {error}")),
        })
    }
}

async fn within<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    timeout(REQUEST_TIMEOUT, request).await.map_err(|_| Failure::Timeout)?.map_err(|error| match error {
        Error::Api(status) if status.code == 409 => Failure::Conflict,
        error => Failure::Api(error),
    })
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(LEASE, Duration::from_secs),
        renewed: spec.renew_time.map(|time| time.0),
        taken: spec.acquire_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// What is not ours in it stays as it is.
fn spec(before: LeaseSpec, record: &Record) -> LeaseSpec {
    LeaseSpec {
        holder_identity: record.holder.clone(),
        lease_duration_seconds: i32::try_from(record.duration.as_secs()).ok(),
        renew_time: record.renewed.map(MicroTime),
        acquire_time: record.taken.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_lease() {
        let at = Some(Timestamp::from_second(1_700_000_000).unwrap());
        let held =
            Record { holder: Some("a".into()), duration: LEASE, renewed: at, taken: at, transitions: 3 };
        for expected in [held.clone(), Record { holder: None, duration: Duration::from_secs(1), ..held }] {
            let strategy =
                LeaseSpec { strategy: Some("OldestEmulationVersion".into()), ..LeaseSpec::default() };
            let spec = spec(strategy, &expected);
            assert_eq!(spec.strategy.as_deref(), Some("OldestEmulationVersion"));
            assert_eq!(record(&Lease { spec: Some(spec), ..Lease::default() }), expected);
        }
    }

    #[test]
    fn an_empty_lease_is_nobodys_for_as_long_as_any() {
        let empty = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };
        let expected = Record { duration: LEASE, ..Record::default() };
        assert_eq!(record(&Lease { spec: Some(empty), ..Lease::default() }), expected);
        assert_eq!(record(&Lease::default()), expected);
        let created = spec(LeaseSpec::default(), &expected);
        assert_eq!((created.holder_identity.as_ref(), created.acquire_time.as_ref()), (None, None));
        assert_eq!(record(&Lease { spec: Some(created), ..Lease::default() }), expected);
    }
}
