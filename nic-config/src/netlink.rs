//! Questions to the kernel over netlink, one at a time and blocking: this program asks a handful and ends.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};

/// Asks for all objects of a kind.
pub fn dump<T>(protocol: isize, question: T) -> io::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug,
{
    ask(protocol, NLM_F_REQUEST | NLM_F_DUMP, question)
}

/// Asks for one object, or has one changed.
pub fn query<T>(protocol: isize, question: T) -> io::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug,
{
    ask(protocol, NLM_F_REQUEST | NLM_F_ACK, question)
}

fn ask<T>(protocol: isize, flags: u16, question: T) -> io::Result<Vec<T>>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug,
{
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = Socket::new(protocol)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut answers)? == Progress::Complete {
            return Ok(answers);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// More datagrams follow.
    Open,
    /// That was all.
    Complete,
}

/// Reads the messages of one datagram. A dump ends with DONE, a single answer with an acknowledgement.
fn read<T>(mut datagram: &[u8], answers: &mut Vec<T>) -> io::Result<Progress>
where
    T: NetlinkDeserializable,
{
    while !datagram.is_empty() {
        let message = NetlinkMessage::<T>::deserialize(datagram).map_err(io::Error::other)?;
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        datagram = datagram.get(length..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Done(done) if done.code == 0 => return Ok(Progress::Complete),
            NetlinkPayload::Done(done) => return Err(io::Error::from_raw_os_error(done.code.abs())),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(Progress::Complete),
            NetlinkPayload::Error(error) => return Err(refusal(&error)),
            _ => {}
        }
    }
    Ok(Progress::Open)
}

/// Length of the question's header, which a refusal repeats.
const HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG`: what the kernel or the driver says in words.
const ATTRIBUTE_MESSAGE: u16 = 1;

/// The error with the words that the kernel or the driver gave it, if any.
fn refusal(error: &ErrorMessage) -> io::Error {
    let plain = error.to_io();
    let attributes = error.header.get(HEADER_BYTES..).unwrap_or_default();
    let message = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ATTRIBUTE_MESSAGE)
        .and_then(|attribute| String::from_utf8(attribute.value().to_vec()).ok());
    match message {
        Some(message) => {
            io::Error::new(plain.kind(), format!("{plain}: {}", message.trim_end_matches(['\0', ' ', '.'])))
        }
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;

    use super::*;

    fn check(datagram: &[u8]) -> Result<(usize, Progress), io::ErrorKind> {
        let mut answers: Vec<RouteNetlinkMessage> = Vec::new();
        let progress = read(datagram, &mut answers).map_err(|error| error.kind())?;
        Ok((answers.len(), progress))
    }

    // struct nlmsghdr: length, type, flags, sequence, port; then the payload.
    const DONE: [u8; 20] = [20, 0, 0, 0, 3, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const ACKNOWLEDGED: [u8; 36] = [
        36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 18, 0, 5, 0, 1, 0, 0, 0, 0,
        0, 0, 0,
    ];
    /// RTM_NEWLINK of index 1 without attributes.
    const LINK: [u8; 32] =
        [32, 0, 0, 0, 16, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 3, 1, 0, 0, 0, 73, 0, 1, 0, 0, 0, 0, 0];

    #[test]
    fn an_answer_ends_with_done_or_an_acknowledgement() {
        assert_eq!(check(&[LINK.as_slice(), &LINK].concat()), Ok((2, Progress::Open)));
        assert_eq!(check(&[LINK.as_slice(), &DONE].concat()), Ok((1, Progress::Complete)));
        assert_eq!(check(&ACKNOWLEDGED), Ok((0, Progress::Complete)));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut refused = ACKNOWLEDGED;
        refused[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(check(&refused), Err(io::ErrorKind::NotFound));
        let mut told = refused.to_vec();
        told.extend([9, 0, 1, 0, b'b', b'u', b's', b'y', 0, 0, 0, 0]);
        told[0] += 12;
        let mut answers: Vec<RouteNetlinkMessage> = Vec::new();
        let told = read(&told, &mut answers).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::NotFound);
        assert!(told.to_string().ends_with(": busy"), "{told}");
        let mut failed = DONE;
        failed[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(check(&failed), Err(io::ErrorKind::PermissionDenied));
        assert!(check(&LINK[..20]).is_err());
    }
}
