//! Keeps the dataplane in agreement: asks how it is four times a second, tells [`Control`], and sends what
//! [`Control`] publishes, once the routes to what it no longer serves are withdrawn. It decides nothing itself and never
//! starts or stops the dataplane.

use std::sync::Arc;
use std::time::Duration;

use shunt_api::client::{Client, ClientError};
use shunt_api::snapshot::{Ack, Rejected, Snapshot};
use shunt_api::status::DataplaneStatus;
use tokio::sync::watch;

use crate::announce::Standings;
use crate::control::Control;
use crate::state::Event;

/// Between two questions while the dataplane answers.
const POLL: Duration = Duration::from_millis(250);
/// Before the first new try when it does not, doubled for each further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// Low enough that a dataplane which starts again is configured within a second.
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// Applying a snapshot may mean building the largest table and attaching to NICs, which reset their link.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// A question is answered from memory.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs for ever.
pub async fn keep_in_agreement(client: Client, control: &Control, announcing: &Standings) {
    let asking = client.clone().with_timeout(STATUS_TIMEOUT);
    let sending = client.with_timeout(APPLY_TIMEOUT);
    let mut published = control.published();
    let mut back_off = BACK_OFF_MIN;
    loop {
        let pause = match asking.get::<DataplaneStatus>("/v1/status").await {
            Ok(status) => {
                control.apply(Event::DataplaneStatus(Box::new(status)));
                back_off = BACK_OFF_MIN;
                POLL
            }
            Err(error) => {
                control.apply(Event::Disconnected(error.to_string()));
                let pause = back_off;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                pause
            }
        };
        if let Some(snapshot) = next(&mut published, pause).await {
            let vips = snapshot.services.iter().flat_map(|service| &service.vips).copied().collect();
            announcing.withdrawn_but(&vips).await;
            control.apply(send(&sending, snapshot).await);
        }
    }
}

/// The next snapshot to send, or `None` when it is time to ask again.
async fn next(
    published: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    pause: Duration,
) -> Option<Arc<Snapshot>> {
    tokio::time::timeout(pause, published.changed()).await.ok()?.ok()?;
    published.borrow_and_update().clone()
}

async fn send(client: &Client, snapshot: Arc<Snapshot>) -> Event {
    match client.put::<Ack>("/v1/snapshot", &*snapshot).await {
        Ok(ack) => Event::Acknowledged(ack, snapshot),
        Err(ClientError::Refused { message, .. }) => {
            let rejected = serde_json::from_str(&message).unwrap_or(Rejected { reason: message });
            Event::Rejected { generation: snapshot.generation, reason: rejected.reason }
        }
        Err(error) => Event::Disconnected(error.to_string()),
    }
}
