//! The receiving end of an upload: counts the bytes and compares each with the pattern.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{BUFFER, pattern};

/// What a server says of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Bytes that came.
    pub bytes: u64,
    /// Offset of the first one that is not as [`pattern`] has it.
    pub wrong_at: Option<u64>,
}

impl Received {
    /// As the answer's body has it.
    pub(super) fn text(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }

    fn add(&mut self, part: &[u8]) {
        let mut offsets = self.bytes..;
        let wrong = offsets.by_ref().zip(part).find(|(offset, byte)| pattern(*offset) != **byte);
        self.wrong_at = self.wrong_at.or(wrong.map(|(offset, _)| offset));
        self.bytes += part.len() as u64;
    }
}

/// Reads `bytes` of body, of which `part` is here already, or what comes of it.
pub(super) async fn receive(stream: &mut TcpStream, mut part: Vec<u8>, bytes: u64) -> io::Result<Received> {
    let mut received = Received { bytes: 0, wrong_at: None };
    part.reserve(16 * BUFFER);
    loop {
        received.add(&part);
        part.clear();
        if received.bytes >= bytes || stream.read_buf(&mut part).await? == 0 {
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_byte_is_named() {
        let body: Vec<u8> = (0..1000).map(pattern).collect();
        let mut received = Received { bytes: 0, wrong_at: None };
        body.chunks(300).for_each(|part| received.add(part));
        assert_eq!(received, Received { bytes: 1000, wrong_at: None });
        received.add(&body[..10]);
        received.add(b"more that is wrong");
        assert_eq!(received.bytes, 1028);
        assert!(received.wrong_at.is_some_and(|at| (1000..1010).contains(&at)), "{received:?}");
    }
}
