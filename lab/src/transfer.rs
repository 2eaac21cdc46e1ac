//! One TCP transfer whose bytes are compared at the other end.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::netns::NetNs;

/// How long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A transfer that succeeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transfer {
    /// How many bytes.
    pub bytes: usize,
    /// From the connection's begin until the other end had compared the last byte.
    pub took: Duration,
}

/// Sends `bytes` bytes from one namespace to an address of another. It fails if they do not all arrive as they were.
pub fn transfer(from: &NetNs, to: &NetNs, address: IpAddr, bytes: usize) -> Result<Transfer> {
    let what = format!("a TCP transfer from {} to {} ({address})", from.name(), to.name());
    let listener = to.within(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
    let listener = listener.map_err(LabError::system(format!("{what}: listen")))?;
    let target = listener.local_addr().map_err(LabError::system(format!("{what}: listen")))?;
    let begin = Instant::now();
    let mut stream = from
        .within(|| TcpStream::connect_timeout(&target, PATIENCE))?
        .map_err(LabError::system(format!("{what}: connect")))?;
    let (peer, _) = listener.accept().map_err(LabError::system(format!("{what}: accept")))?;
    for end in [&stream, &peer] {
        end.set_read_timeout(Some(PATIENCE))
            .and_then(|()| end.set_write_timeout(Some(PATIENCE)))
            .map_err(LabError::system(format!("{what}: set time limits")))?;
    }
    let receiver = thread::spawn(move || compare(peer));
    let sent = Pattern::new(bytes)
        .try_for_each(|block| stream.write_all(&block))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .map_err(LabError::system(format!("{what}: send")));
    let received = receiver.join().map_err(|_| LabError::Spec(format!("{what}: the receiver panicked")))?;
    sent?;
    match received.map_err(LabError::system(format!("{what}: receive")))? {
        Some(count) if count == bytes => Ok(Transfer { bytes, took: begin.elapsed() }),
        Some(count) => Err(LabError::Spec(format!("{what}: {count} of {bytes} bytes arrived"))),
        None => Err(LabError::Spec(format!("{what}: the bytes that arrived are not those that were sent"))),
    }
}

/// Reads until the end; the number of bytes if they are the pattern's.
fn compare(mut peer: TcpStream) -> std::io::Result<Option<usize>> {
    let mut received = Vec::new();
    peer.read_to_end(&mut received)?;
    let expected: Vec<u8> = Pattern::new(received.len()).flatten().collect();
    Ok((received == expected).then_some(received.len()))
}

/// Blocks of bytes that do not repeat, so that a lost or doubled piece shows.
struct Pattern {
    left: usize,
    state: u64,
}

impl Pattern {
    fn new(bytes: usize) -> Pattern {
        Pattern { left: bytes, state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Iterator for Pattern {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let size = self.left.min(8192);
        self.left -= size;
        let mut block = Vec::with_capacity(size + 8);
        while block.len() < size {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            block.extend_from_slice(&self.state.to_be_bytes());
        }
        block.truncate(size);
        (size > 0).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_has_the_asked_length_and_does_not_repeat() {
        let bytes: Vec<u8> = Pattern::new(20_001).flatten().collect();
        assert_eq!(bytes.len(), 20_001);
        assert_ne!(bytes[..8192], bytes[8192..16384]);
    }
}
