//! What a run of packets tells.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::error::{LabError, Result};

/// What became of a flow, or of several together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeReport {
    /// Packets sent, or tried to send.
    pub sent: u64,
    /// Packets that were answered.
    pub received: u64,
    /// Packets without an answer.
    pub lost: u64,
    /// Answers that came once more.
    pub duplicated: u64,
    /// The longest time without an answered packet: from the first lost one to the next that was answered.
    pub longest_outage_ms: f64,
    /// The longest time between two answers.
    pub longest_gap_ms: f64,
    /// The longest time between two packets sent: the part of the gap that the sender itself made.
    pub longest_pause_ms: f64,
    /// The slowest answer.
    pub slowest_ms: f64,
    /// When the first lost packet was sent.
    pub first_loss: Option<SystemTime>,
}

/// What became of each flow.
#[derive(Debug, Clone, Default)]
pub struct TrafficReport {
    /// Their names and reports.
    pub flows: Vec<(String, ProbeReport)>,
    /// Packets that came in faster than this program took them. They count as lost although the network brought them.
    pub overruns: u64,
}

/// What became of the packets that were sent in a piece of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moment {
    /// When it began, since the first packet.
    pub at: Duration,
    /// Packets sent in it.
    pub sent: u64,
    /// Those of them that were never answered.
    pub lost: u64,
    /// The slowest answer.
    pub slowest_ms: f64,
}

impl Moment {
    pub(super) fn at(at: Duration) -> Moment {
        Moment { at, ..Moment::default() }
    }

    pub(super) fn add(&mut self, answer: Option<Duration>) {
        self.sent += 1;
        match answer {
            Some(took) => self.slowest_ms = self.slowest_ms.max(took.as_secs_f64() * 1000.0),
            None => self.lost += 1,
        }
    }
}

impl ProbeReport {
    fn add(self, other: &ProbeReport) -> ProbeReport {
        ProbeReport {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            longest_outage_ms: self.longest_outage_ms.max(other.longest_outage_ms),
            longest_gap_ms: self.longest_gap_ms.max(other.longest_gap_ms),
            longest_pause_ms: self.longest_pause_ms.max(other.longest_pause_ms),
            slowest_ms: self.slowest_ms.max(other.slowest_ms),
            first_loss: [self.first_loss, other.first_loss].into_iter().flatten().min(),
        }
    }
}

impl TrafficReport {
    /// All flows together: sums, and the worst of the times.
    pub fn total(&self) -> ProbeReport {
        self.flows.iter().fold(ProbeReport::default(), |total, (_, report)| total.add(report))
    }

    /// An error if losses may be this program's own.
    pub fn check(&self) -> Result<()> {
        match self.overruns {
            0 => Ok(()),
            count => Err(LabError::Unsuitable(format!(
                "{count} packets were dropped at the probes' own sockets: the machine is too busy for this pace"
            ))),
        }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} lost", self.sent, self.lost)?;
        if self.duplicated > 0 {
            write!(f, ", {} duplicated", self.duplicated)?;
        }
        write!(f, ", longest outage {:.0} ms, slowest answer {:.1} ms", self.longest_outage_ms, self.slowest_ms)
    }
}

impl fmt::Display for TrafficReport {
    /// The whole in one line, then a line for each flow that had trouble.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "{} packets in {} flows, {} lost, {} duplicated, longest gap {:.1} ms (the sender's own longest pause {:.1} ms)",
            total.sent,
            self.flows.len(),
            total.lost,
            total.duplicated,
            total.longest_gap_ms,
            total.longest_pause_ms,
        )?;
        for (name, report) in self.flows.iter().filter(|(_, report)| report.lost + report.duplicated > 0) {
            write!(f, "\n  {name}: {report}")?;
            if let Some(when) = report.first_loss {
                write!(f, ", the first at {}", TimeOfDay(when))?;
            }
        }
        Ok(())
    }
}

/// In UTC, as logs have it.
struct TimeOfDay(SystemTime);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = since.as_secs() % 86_400;
        write!(f, "{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, since.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_has_sums_and_the_worst_times() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let one = ProbeReport {
            sent: 10,
            received: 9,
            lost: 1,
            longest_gap_ms: 2.0,
            first_loss: at(7),
            ..Default::default()
        };
        let two = ProbeReport {
            sent: 5,
            received: 4,
            lost: 1,
            longest_gap_ms: 9.0,
            first_loss: at(3661),
            ..Default::default()
        };
        let report = TrafficReport { flows: vec![("a".into(), one), ("b".into(), two)], overruns: 0 };
        let total = report.total();
        assert_eq!((total.sent, total.received, total.lost, total.longest_gap_ms), (15, 13, 2, 9.0));
        assert_eq!(total.first_loss, at(7));
        assert!(report.to_string().contains("b: 5 sent, 1 lost"), "{report}");
        assert!(report.to_string().contains("01:01:01.000"), "{report}");
    }

    #[test]
    fn what_the_instrument_lost_itself_is_an_error() {
        assert!(TrafficReport { overruns: 1, ..TrafficReport::default() }.check().is_err());
    }
}
