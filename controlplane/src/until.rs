//! Waiting for an instant that there may not be.

use std::time::Instant;

/// Returns then; never if there is nothing to wait for.
pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
