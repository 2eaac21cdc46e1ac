//! One TCP connection that goes on while something is done to the network.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::netns::NetNs;

/// Bytes per block: some full packets.
const BLOCK: usize = 4096;
/// From one block to the next: 2 MB a second.
const PACE: Duration = Duration::from_millis(2);
/// Without a byte for so long, the connection counts as broken.
const BROKEN: Duration = Duration::from_secs(10);

/// A running stream. It ends when it is dropped.
#[derive(Debug)]
pub struct Stream {
    /// Whom the receiver sees at the other end.
    pub seen: IpAddr,
    stop: Arc<AtomicBool>,
    threads: Option<(JoinHandle<usize>, JoinHandle<Received>)>,
}

/// What became of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamReport {
    /// Bytes that the sender could give to the kernel.
    pub sent: usize,
    /// Bytes that arrived, each as it was sent and at its place.
    pub received: usize,
    /// The longest time without a byte.
    pub longest_stall_ms: f64,
    /// What ended it, if not its sender.
    pub broken: Option<String>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: usize,
    longest: Duration,
    broken: Option<String>,
}

impl Stream {
    /// Connects from one namespace to an address of another, and begins to send.
    pub fn start(from: &NetNs, to: &NetNs, address: IpAddr) -> Result<Stream> {
        let what = name(from, to, address);
        let (outgoing, incoming) = connect(from, to, address)?;
        Stream::run(outgoing, incoming).map_err(LabError::system(what))
    }

    /// The same with one connection that carries a stream each way: there, and back.
    pub fn both_ways(from: &NetNs, to: &NetNs, address: IpAddr) -> Result<[Stream; 2]> {
        let (outgoing, incoming) = connect(from, to, address)?;
        let there = outgoing.try_clone().and_then(|sender| Stream::run(sender, incoming.try_clone()?));
        let back = Stream::run(incoming, outgoing);
        there.and_then(|there| Ok([there, back?])).map_err(LabError::system(name(from, to, address)))
    }

    fn run(sender: TcpStream, receiver: TcpStream) -> std::io::Result<Stream> {
        sender.set_nodelay(true)?;
        sender.set_write_timeout(Some(BROKEN))?;
        receiver.set_read_timeout(Some(BROKEN))?;
        let seen = receiver.peer_addr()?.ip();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let threads = (thread::spawn(move || send(sender, &told)), thread::spawn(move || receive(receiver)));
        Ok(Stream { seen, stop, threads: Some(threads) })
    }

    /// Ends it and reports.
    pub fn stop(mut self) -> Result<StreamReport> {
        self.stop.store(true, Ordering::Relaxed);
        let died = || LabError::Spec("a thread of the stream panicked".into());
        let (sender, receiver) = self.threads.take().ok_or_else(died)?;
        let sent = sender.join().map_err(|_| died())?;
        let Received { bytes, longest, broken } = receiver.join().map_err(|_| died())?;
        Ok(StreamReport { sent, received: bytes, longest_stall_ms: longest.as_secs_f64() * 1000.0, broken })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl StreamReport {
    /// Whether everything arrived.
    pub fn is_whole(&self) -> bool {
        self.broken.is_none() && self.received == self.sent
    }
}

impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes, longest stall {:.1} ms", self.received, self.sent, self.longest_stall_ms)?;
        self.broken.as_ref().map_or(Ok(()), |why| write!(f, ", broken: {why}"))
    }
}

fn name(from: &NetNs, to: &NetNs, address: IpAddr) -> String {
    format!("a TCP stream from {} to {} ({address})", from.name(), to.name())
}

/// Both ends of a connection.
fn connect(from: &NetNs, to: &NetNs, address: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let what = name(from, to, address);
    let failed = |doing: &str| LabError::system(format!("{what}: {doing}"));
    let listener = to.within(|| TcpListener::bind(SocketAddr::new(address, 0)))?.map_err(failed("listen"))?;
    let target = listener.local_addr().map_err(failed("listen"))?;
    let outgoing = from.within(|| TcpStream::connect_timeout(&target, BROKEN))?.map_err(failed("connect"))?;
    let (incoming, _) = listener.accept().map_err(failed("accept"))?;
    Ok((outgoing, incoming))
}

/// What stands at an offset. Its period is a prime, so that no lost or doubled block fits.
fn byte(offset: usize) -> u8 {
    u8::try_from(offset % 251).unwrap_or_default()
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> usize {
    let (mut sent, mut due) = (0, Instant::now());
    let mut block = [0; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        block.iter_mut().enumerate().for_each(|(place, slot)| *slot = byte(sent + place));
        if stream.write_all(&block).is_err() {
            // The receiver says why.
            break;
        }
        sent += BLOCK;
        due = (due + PACE).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    // The other way may go on.
    let _ = stream.shutdown(Shutdown::Write);
    sent
}

fn receive(mut stream: TcpStream) -> Received {
    let (mut received, mut last, mut buffer) = (Received::default(), Instant::now(), vec![0; 16 * BLOCK]);
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return received,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let longest = received.longest.max(last.elapsed());
                return Received { broken: Some(error.to_string()), longest, ..received };
            }
        };
        received.longest = received.longest.max(last.elapsed());
        last = Instant::now();
        let wrong = (0..length).find(|place| buffer[*place] != byte(received.bytes + place));
        if let Some(place) = wrong {
            let broken = format!("byte {} is not the one that was sent", received.bytes + place);
            return Received { broken: Some(broken), ..received };
        }
        received.bytes += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_doubled_block_shows() {
        assert!((1..200).all(|blocks| byte(blocks * BLOCK) != byte(0)));
    }
}
