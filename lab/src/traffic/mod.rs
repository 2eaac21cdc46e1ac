//! Numbered UDP packets between many namespaces at once, while something is done to the network.
//!
//! Every packet of a flow is answered by an echo at the other end. `ping` cannot do this: its pace is coarse, and it gives up at
//! the first local error, which is just when it becomes interesting. One thread sends for all flows and one per socket receives, so
//! that a matrix of pods costs little: what is lost here was lost by the network, and packets that this program itself could
//! not take in time are an error, not a loss.

mod flow;
mod log;
mod report;
mod socket;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

pub use flow::Flow;
pub use report::{Moment, ProbeReport, TrafficReport};

use crate::error::{LabError, Result};
use crate::netns::NetNs;
use log::FlowLog;
use socket::{Endpoint, Endpoints};

/// How long the last answers may take after the last packet was sent.
const LINGER: Duration = Duration::from_millis(500);

/// Running flows. They end when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    flows: Vec<Running>,
    endpoints: Vec<Arc<Endpoint>>,
    begin: (Instant, SystemTime),
    stop: Arc<Stop>,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

/// A flow, and what came of it so far.
#[derive(Debug, Clone)]
struct Running {
    flow: Flow,
    log: Arc<Mutex<FlowLog>>,
}

#[derive(Debug, Default)]
struct Stop {
    sending: AtomicBool,
    receiving: AtomicBool,
}

impl Traffic {
    /// Starts all flows, at once but spread over their intervals.
    pub fn start(flows: Vec<Flow>) -> Result<Traffic> {
        let begin = (Instant::now(), SystemTime::now());
        let mut endpoints = Endpoints::default();
        let mut ways = Vec::new();
        for flow in &flows {
            let any: IpAddr =
                if flow.address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let echo = endpoints.open(&flow.to, flow.address, true)?;
            ways.push((endpoints.open(&flow.from, any, false)?, echo.address()?));
        }
        let endpoints = endpoints.all();
        let flows: Vec<Running> = flows.into_iter().map(|flow| Running { flow, log: Arc::default() }).collect();
        let logs: Arc<[Arc<Mutex<FlowLog>>]> = flows.iter().map(|running| running.log.clone()).collect();
        let stop = Arc::new(Stop::default());
        let receivers = endpoints.iter().map(|endpoint| {
            let (endpoint, logs, stop) = (endpoint.clone(), logs.clone(), stop.clone());
            thread::spawn(move || endpoint.receive(&logs, &stop.receiving))
        });
        let receivers = receivers.collect();
        let sender = {
            let (flows, stop) = (flows.clone(), stop.clone());
            thread::spawn(move || send(&flows, &ways, &stop.sending))
        };
        Ok(Traffic { flows, endpoints, begin, stop, sender: Some(sender), receivers })
    }

    /// What came of it until now. Answers may take half a second before their packets count as lost, so the last half second is
    /// left out.
    pub fn so_far(&self) -> Result<TrafficReport> {
        self.report(Instant::now().checked_sub(LINGER))
    }

    /// Ends it and reports.
    pub fn stop(mut self) -> Result<TrafficReport> {
        let died = |_| LabError::Spec("a thread of the traffic panicked".into());
        self.stop.sending.store(true, Ordering::Relaxed);
        self.sender.take().map_or(Ok(()), |sender| sender.join().map_err(died))?;
        thread::sleep(LINGER);
        self.stop.receiving.store(true, Ordering::Relaxed);
        self.receivers.drain(..).try_for_each(|receiver| receiver.join().map_err(died))?;
        self.report(None)
    }

    /// How it went, step by step. The last half second is left out, as in [`Self::so_far`].
    pub fn timeline(&self, step: Duration) -> Vec<Moment> {
        let (begin, _) = self.begin;
        let end = Instant::now().checked_sub(LINGER).unwrap_or(begin);
        let count = end.saturating_duration_since(begin).as_nanos() / step.as_nanos().max(1);
        let mut moments: Vec<Moment> =
            (0..u32::try_from(count).unwrap_or(0)).map(|number| Moment::at(step * number)).collect();
        for running in &self.flows {
            running.log.lock().unwrap_or_else(PoisonError::into_inner).spread(begin, step, &mut moments);
        }
        moments
    }

    fn report(&self, until: Option<Instant>) -> Result<TrafficReport> {
        let overruns = self.endpoints.iter().map(|endpoint| endpoint.overruns()).sum::<Result<u64>>()?;
        let (begin, clock) = self.begin;
        let flows = self.flows.iter().map(|running| {
            let log = running.log.lock().unwrap_or_else(PoisonError::into_inner);
            let at = |instant: Instant| clock + instant.saturating_duration_since(begin);
            (running.flow.name.clone(), log.report(running.flow.interval, until, at))
        });
        Ok(TrafficReport { flows: flows.collect(), overruns })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.sending.store(true, Ordering::Relaxed);
        self.stop.receiving.store(true, Ordering::Relaxed);
    }
}

/// Sends every flow's packets when they are due.
fn send(flows: &[Running], ways: &[(Arc<Endpoint>, SocketAddr)], stop: &AtomicBool) {
    let begin = Instant::now();
    let count = u32::try_from(flows.len()).unwrap_or(u32::MAX).max(1);
    let mut due: Vec<Instant> =
        (0..count).zip(flows).map(|(number, running)| begin + running.flow.interval * number / count).collect();
    let mut buffers: Vec<Vec<u8>> = flows.iter().map(|running| vec![0; running.flow.payload()]).collect();
    while !stop.load(Ordering::Relaxed) {
        let Some(next) = due.iter().min() else { return };
        thread::sleep(next.saturating_duration_since(Instant::now()));
        for (index, running) in flows.iter().enumerate() {
            let now = Instant::now();
            if due[index] > now {
                continue;
            }
            let number = running.log.lock().unwrap_or_else(PoisonError::into_inner).sent(now);
            let (endpoint, target) = &ways[index];
            endpoint.send(&mut buffers[index], index, number, *target);
            // After a pause of the whole machine go on at the pace, do not catch up with a burst.
            due[index] = (due[index] + running.flow.interval).max(now);
        }
    }
}

/// A single flow.
#[derive(Debug)]
pub struct Probe(Traffic);

impl Probe {
    /// Starts to send from one namespace to an address of another, one packet every `interval`.
    pub fn start(from: &NetNs, to: &NetNs, address: IpAddr, interval: Duration) -> Result<Probe> {
        Traffic::start(vec![Flow::new(from, to, address, interval)]).map(Probe)
    }

    /// Ends it and reports.
    pub fn stop(self) -> Result<ProbeReport> {
        let report = self.0.stop()?;
        report.check()?;
        Ok(report.total())
    }
}
