//! How many receive queues a NIC has now, and which worker serves which.

use futures_util::TryStreamExt;
use shunt_api::snapshot;

use crate::port::NicIndex;
use crate::port::xsk::QueueId;

/// Why the queues of a NIC are not usable.
#[derive(Debug, thiserror::Error)]
pub enum QueuesError {
    /// Netlink said no.
    #[error("cannot ask how many queues {nic} has: {reason}; check the name with `ip link`")]
    Ask {
        /// Kernel name.
        nic: String,
        /// In the kernel's words.
        reason: String,
    },
    /// More are wanted than there are.
    #[error(
        "{nic} has {present} receive queues, but {wanted} are configured; lower nic.queues or run `ethtool -L {nic} combined {wanted}`"
    )]
    TooFew {
        /// Kernel name.
        nic: String,
        /// How many it has.
        present: u32,
        /// How many are configured.
        wanted: u32,
    },
}

/// Queues to serve on a NIC: as configured, or all it has.
///
/// A driver that does not report channels has one queue.
pub async fn to_serve(nic: &snapshot::Nic) -> Result<u32, QueuesError> {
    let present = receive_queues(&nic.name).await?;
    match nic.queues {
        Some(wanted) if wanted > present => {
            Err(QueuesError::TooFew { nic: nic.name.clone(), present, wanted })
        }
        Some(wanted) => Ok(wanted),
        None => Ok(present),
    }
}

async fn receive_queues(nic: &str) -> Result<u32, QueuesError> {
    let failed = |reason: String| QueuesError::Ask { nic: nic.to_owned(), reason };
    let (connection, mut handle, _) = ethtool::new_connection().map_err(|error| failed(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut answers =
        handle.channel().get(Some(nic)).execute().await.map_err(|error| failed(error.to_string()))?;
    let answer = answers.try_next().await;
    connection.abort();
    match answer {
        Ok(Some(answer)) => Ok(count(&answer.payload.nlas).max(1)),
        Err(ethtool::EthtoolError::NetlinkError(error)) if error.raw_code() == -libc::EOPNOTSUPP => Ok(1),
        Ok(None) => Err(failed("no answer".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn count(attributes: &[ethtool::EthtoolAttr]) -> u32 {
    use ethtool::{EthtoolAttr, EthtoolChannelAttr};
    let counts = attributes.iter().map(|attribute| match attribute {
        EthtoolAttr::Channel(
            EthtoolChannelAttr::RxCount(count) | EthtoolChannelAttr::CombinedCount(count),
        ) => *count,
        _ => 0,
    });
    counts.sum()
}

/// The queues of each worker. There are as many workers as the NIC with the fewest queues has, so that each
/// can transmit on every NIC; queue *q* of a NIC belongs to worker *q* modulo their number.
pub fn partition(nics: &[(String, u32)]) -> Vec<Vec<QueueId>> {
    let workers = nics.iter().map(|(_, queues)| *queues).min().unwrap_or(0);
    let mut partition = vec![Vec::new(); workers as usize];
    for (index, (name, queues)) in nics.iter().enumerate() {
        for queue in 0..*queues {
            let id = QueueId { nic: NicIndex(index as u8), name: name.clone(), queue };
            partition[(queue % workers) as usize].push(id);
        }
    }
    partition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_one_worker_and_every_worker_every_nic() {
        let served = partition(&[("a".to_owned(), 4), ("b".to_owned(), 2)]);
        let text: Vec<Vec<String>> = served
            .iter()
            .map(|queues| queues.iter().map(|q| format!("{}{}", q.name, q.queue)).collect())
            .collect();
        assert_eq!(text, [vec!["a0", "a2", "b0"], vec!["a1", "a3", "b1"]]);
        assert!(partition(&[]).is_empty());
    }
}
