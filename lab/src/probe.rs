//! Measures loss and outages while something is done to the network.
//!
//! A stream of numbered UDP packets at a fixed pace, answered by an echo at the other end. `ping` cannot do this: its pace is
//! coarse, and it gives up at the first local error, which is just when it becomes interesting.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::netns::NetNs;

/// How long the last answers may take after the last packet was sent.
const LINGER: Duration = Duration::from_millis(500);

/// A running probe. It ends when it is dropped.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<Flags>,
    sender: Option<JoinHandle<Vec<Instant>>>,
    receiver: Option<JoinHandle<Vec<(u64, Instant)>>>,
    echo: Option<JoinHandle<()>>,
    interval: Duration,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeReport {
    /// Packets sent, or tried to send.
    pub sent: u64,
    /// Answers.
    pub received: u64,
    /// Packets without an answer.
    pub lost: u64,
    /// The longest time without an answered packet: from the first lost one to the next that was answered.
    pub longest_outage_ms: f64,
    /// The slowest answer.
    pub slowest_ms: f64,
}

#[derive(Debug, Default)]
struct Flags {
    sending: AtomicBool,
    receiving: AtomicBool,
}

impl Probe {
    /// Starts to send from one namespace to an address of another, one packet every `interval`.
    pub fn start(from: &NetNs, to: &NetNs, address: IpAddr, interval: Duration) -> Result<Probe> {
        let echo = to.within(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let echo = echo.map_err(LabError::system(format!("answer probes on {address} in {}", to.name())))?;
        let target = echo.local_addr().map_err(LabError::system("read the address of a socket"))?;
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = from.within(|| UdpSocket::bind(any))?;
        let socket = socket.map_err(LabError::system(format!("send probes from {}", from.name())))?;
        let copy = socket.try_clone().map_err(LabError::system("copy a socket"))?;
        for socket in [&echo, &copy] {
            let limit = Some(Duration::from_millis(50));
            socket.set_read_timeout(limit).map_err(LabError::system("set a time limit on a socket"))?;
        }

        let stop = Arc::new(Flags::default());
        let (a, b, c) = (stop.clone(), stop.clone(), stop.clone());
        Ok(Probe {
            sender: Some(thread::spawn(move || send(&socket, target, interval, &a.sending))),
            receiver: Some(thread::spawn(move || receive(&copy, &b.receiving))),
            echo: Some(thread::spawn(move || answer(&echo, &c.receiving))),
            stop,
            interval,
        })
    }

    /// Ends it and reports.
    pub fn stop(mut self) -> Result<ProbeReport> {
        self.stop.sending.store(true, Ordering::Relaxed);
        let died = || LabError::Spec("a thread of the probe panicked".into());
        let sent = self.sender.take().ok_or_else(died)?.join().map_err(|_| died())?;
        thread::sleep(LINGER);
        self.stop.receiving.store(true, Ordering::Relaxed);
        let received = self.receiver.take().ok_or_else(died)?.join().map_err(|_| died())?;
        self.echo.take().ok_or_else(died)?.join().map_err(|_| died())?;
        Ok(ProbeReport::new(&sent, &received, self.interval))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.sending.store(true, Ordering::Relaxed);
        self.stop.receiving.store(true, Ordering::Relaxed);
    }
}

impl ProbeReport {
    fn new(sent: &[Instant], received: &[(u64, Instant)], interval: Duration) -> ProbeReport {
        let mut answered = vec![None; sent.len()];
        for (number, at) in received {
            if let Some(slot) = usize::try_from(*number).ok().and_then(|number| answered.get_mut(number)) {
                slot.get_or_insert(*at);
            }
        }
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (mut longest, mut slowest, mut dark_since) = (0.0_f64, 0.0_f64, None);
        for (sent, answer) in sent.iter().zip(&answered) {
            match answer {
                Some(at) => {
                    slowest = slowest.max(ms(at.saturating_duration_since(*sent)));
                    if let Some(since) = dark_since.take() {
                        longest = longest.max(ms(sent.duration_since(since)));
                    }
                }
                None => dark_since = dark_since.or(Some(*sent)),
            }
        }
        if let (Some(since), Some(last)) = (dark_since, sent.last()) {
            longest = longest.max(ms(last.duration_since(since) + interval));
        }
        let received = answered.iter().flatten().count() as u64;
        let sent = sent.len() as u64;
        ProbeReport { sent, received, lost: sent - received, longest_outage_ms: longest, slowest_ms: slowest }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} lost, longest outage {:.0} ms, slowest answer {:.1} ms",
            self.sent, self.lost, self.longest_outage_ms, self.slowest_ms
        )
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, interval: Duration, stop: &AtomicBool) -> Vec<Instant> {
    let (mut sent, mut due) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let number = sent.len() as u64;
        sent.push(Instant::now());
        // A local error (no route, link down) is a lost packet, which is what the probe is there to count.
        let _ = socket.send_to(&number.to_be_bytes(), to);
        due += interval;
        // After a pause of the whole machine go on at the pace, do not catch up with a burst.
        due = due.max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<(u64, Instant)> {
    let (mut received, mut buffer) = (Vec::new(), [0; 8]);
    while !stop.load(Ordering::Relaxed) {
        if let Ok((8, _)) = socket.recv_from(&mut buffer) {
            received.push((u64::from_be_bytes(buffer), Instant::now()));
        }
    }
    received
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 8];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                // If the way back is broken, the sender counts it.
                let _ = socket.send_to(&buffer[..length], from);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // ICMP errors arrive here, as an answer to an answer. They do not come in floods.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_until_the_next_answered_packet() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let sent: Vec<Instant> = (0..10).map(|n| at(n * 10)).collect();
        let received: Vec<(u64, Instant)> = [0, 1, 5, 6, 7].map(|n| (n, at(n * 10 + 1))).to_vec();
        let report = ProbeReport::new(&sent, &received, Duration::from_millis(10));
        assert_eq!((report.sent, report.received, report.lost), (10, 5, 5));
        assert!((report.longest_outage_ms - 30.0).abs() < 1e-6, "{report}");
        assert!((report.slowest_ms - 1.0).abs() < 1e-6, "{report}");
    }

    #[test]
    fn an_outage_at_the_end_counts_too() {
        let start = Instant::now();
        let sent: Vec<Instant> = (0..4).map(|n| start + Duration::from_millis(n * 10)).collect();
        let report = ProbeReport::new(&sent, &[(0, start)], Duration::from_millis(10));
        assert!((report.longest_outage_ms - 30.0).abs() < 1e-6, "{report}");
    }
}
