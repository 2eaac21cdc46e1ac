//! One TCP connection that goes on while something is done to the network.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twill_lab::NetNs;

/// Bytes per block, small enough that a packet carries one.
const BLOCK: usize = 1024;
/// A block every millisecond: 1 MB a second.
const PACE: Duration = Duration::from_millis(1);
/// Without a byte for so long, the connection counts as broken.
const BROKEN: Duration = Duration::from_secs(10);

/// A running stream.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<usize>,
    receiver: JoinHandle<(usize, Duration)>,
}

/// What arrived.
#[derive(Debug)]
pub(crate) struct StreamReport {
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// The longest time without a byte.
    pub(crate) longest_stall: Duration,
}

impl Stream {
    /// Connects from one namespace to an address of another, and begins to send.
    pub(crate) fn start(from: &NetNs, to: &NetNs, address: IpAddr) -> Stream {
        let listener = to.within(|| TcpListener::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let outgoing = from.within(|| TcpStream::connect_timeout(&target, BROKEN)).unwrap().unwrap();
        let (incoming, _) = listener.accept().unwrap();
        outgoing.set_nodelay(true).unwrap();
        outgoing.set_write_timeout(Some(BROKEN)).unwrap();
        incoming.set_read_timeout(Some(BROKEN)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Stream {
            stop,
            sender: thread::spawn(move || send(outgoing, &told)),
            receiver: thread::spawn(move || receive(incoming)),
        }
    }

    /// Ends it and reports.
    pub(crate) fn stop(self) -> StreamReport {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        let (received, longest_stall) = self.receiver.join().unwrap();
        StreamReport { sent, received, longest_stall }
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> usize {
    let (mut sent, mut due) = (0, Instant::now());
    while !stop.load(Ordering::Relaxed) && stream.write_all(&[0x5a; BLOCK]).is_ok() {
        sent += BLOCK;
        due = (due + PACE).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent
}

fn receive(mut stream: TcpStream) -> (usize, Duration) {
    let (mut received, mut longest, mut last, mut buffer) = (0, Duration::ZERO, Instant::now(), [0; 64 * BLOCK]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (received, longest),
            Ok(length) => {
                received += length;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return (received, longest.max(last.elapsed())),
        }
    }
}
