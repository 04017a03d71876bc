//! Waiting for an instant that there may not be.

use std::time::Instant;

/// The present by the clock that [`until`] goes by, which tests may stop.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns then; never if there is nothing to wait for.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
