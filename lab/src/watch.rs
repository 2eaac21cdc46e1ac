//! Traffic of every kind across a whole lab: small packets on all ways, packets of full size, long TCP connections.

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::lab::Lab;
use crate::pod::Pod;
use crate::stream::{Stream, StreamReport};
use crate::traffic::{Flow, Moment, Traffic, TrafficReport};

/// From one packet of full size to the next.
const LARGE: Duration = Duration::from_millis(4);

/// Traffic under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    traffic: Traffic,
    streams: Vec<(String, Stream)>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The packets.
    pub traffic: TrafficReport,
    /// The connections, and between whom they were.
    pub streams: Vec<(String, StreamReport)>,
}

impl Watch {
    /// Begins. Small packets go every `pace` from every pod to every one of other nodes. What costs more goes only from a
    /// pod of each node to one of the next: packets of `size` bytes, and TCP.
    pub fn start(lab: &Lab, size: usize, pace: Duration) -> Result<Watch> {
        let ring = ring(lab);
        let large = |(from, to): &(&Pod, &Pod)| {
            let flow = |address| Flow::new(&from.ns, &to.ns, address, LARGE).sized(size);
            to.addresses.iter().copied().map(flow).collect::<Vec<Flow>>()
        };
        let traffic = lab.matrix(pace, ring.iter().flat_map(large).collect())?;
        let mut streams = Vec::new();
        for (from, to) in ring {
            for address in &to.addresses {
                streams.push((format!("{} to {} {address}", from.name, to.name), lab.stream(from, *address)?));
            }
        }
        Ok(Watch { traffic, streams })
    }

    /// What came of the packets until now.
    pub fn so_far(&self) -> Result<TrafficReport> {
        self.traffic.so_far()
    }

    /// How it went with the packets, step by step.
    pub fn timeline(&self, step: Duration) -> Vec<Moment> {
        self.traffic.timeline(step)
    }

    /// Ends it and reports.
    pub fn stop(self) -> Result<Watched> {
        let traffic = self.traffic.stop()?;
        let streams = self.streams.into_iter().map(|(name, stream)| Ok((name, stream.stop()?)));
        Ok(Watched { traffic, streams: streams.collect::<Result<_>>()? })
    }
}

impl Watched {
    /// The longest time in which a connection brought nothing.
    pub fn longest_stall_ms(&self) -> f64 {
        self.streams.iter().map(|(_, stream)| stream.longest_stall_ms).fold(0.0, f64::max)
    }

    /// Connections that broke, or lost something.
    pub fn broken(&self) -> impl Iterator<Item = &(String, StreamReport)> {
        self.streams.iter().filter(|(_, stream)| !stream.is_whole())
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; {} TCP streams, longest stall {:.1} ms",
            self.traffic,
            self.streams.len(),
            self.longest_stall_ms()
        )?;
        self.broken().try_for_each(|(name, stream)| write!(f, "\n  TCP {name}: {stream}"))
    }
}

/// From the first pod of each node that has one to that of the next.
fn ring(lab: &Lab) -> Vec<(&Pod, &Pod)> {
    let mut first: Vec<&Pod> = Vec::new();
    for pod in lab.pods() {
        if first.iter().all(|other| other.node != pod.node) {
            first.push(pod);
        }
    }
    let next = first.iter().cycle().skip(1);
    let ring = first.iter().zip(next).map(|(from, to)| (*from, *to));
    ring.filter(|(from, to)| from.node != to.node).collect()
}
