//! What became of every packet of a flow.

use std::time::{Duration, Instant, SystemTime};

use super::report::{Moment, ProbeReport};

/// When packets were sent and when they were answered.
#[derive(Debug, Default)]
pub(super) struct FlowLog {
    packets: Vec<Packet>,
    duplicated: u64,
    last_answer: Option<Instant>,
    /// Between two answers.
    longest_gap: Duration,
}

#[derive(Debug)]
struct Packet {
    sent: Instant,
    answered: Option<Instant>,
}

impl FlowLog {
    /// Notes a packet that goes now, and gives it its number.
    pub(super) fn sent(&mut self, at: Instant) -> u64 {
        self.packets.push(Packet { sent: at, answered: None });
        self.packets.len() as u64 - 1
    }

    /// Notes an answer.
    pub(super) fn answered(&mut self, number: u64, at: Instant) {
        let Some(packet) = usize::try_from(number).ok().and_then(|number| self.packets.get_mut(number)) else { return };
        if packet.answered.is_some() {
            self.duplicated += 1;
            return;
        }
        packet.answered = Some(at);
        let gap = self.last_answer.replace(at).map_or(Duration::ZERO, |last| at.saturating_duration_since(last));
        self.longest_gap = self.longest_gap.max(gap);
    }

    /// Adds every packet to the moment in which it was sent.
    pub(super) fn spread(&self, begin: Instant, step: Duration, moments: &mut [Moment]) {
        for packet in &self.packets {
            let place = packet.sent.saturating_duration_since(begin).as_nanos() / step.as_nanos().max(1);
            let Some(moment) = usize::try_from(place).ok().and_then(|place| moments.get_mut(place)) else { continue };
            moment.add(packet.answered.map(|at| at.saturating_duration_since(packet.sent)));
        }
    }

    /// Sums up what was sent until then, or everything. `clock` tells the time of day.
    pub(super) fn report(
        &self,
        interval: Duration,
        until: Option<Instant>,
        clock: impl Fn(Instant) -> SystemTime,
    ) -> ProbeReport {
        let count =
            until.map_or(self.packets.len(), |until| self.packets.partition_point(|packet| packet.sent < until));
        let packets = &self.packets[..count];
        let (mut outage, mut slowest, mut pause) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let (mut lost, mut first_loss, mut dark_since) = (0, None, None);
        for (number, packet) in packets.iter().enumerate() {
            if let Some(before) = number.checked_sub(1) {
                pause = pause.max(packet.sent.duration_since(packets[before].sent));
            }
            match packet.answered {
                Some(at) => {
                    slowest = slowest.max(at.saturating_duration_since(packet.sent));
                    let dark = dark_since.take().map_or(Duration::ZERO, |since| packet.sent.duration_since(since));
                    outage = outage.max(dark);
                }
                None => {
                    lost += 1;
                    first_loss = first_loss.or(Some(clock(packet.sent)));
                    dark_since = dark_since.or(Some(packet.sent));
                }
            }
        }
        if let (Some(since), Some(last)) = (dark_since, packets.last()) {
            outage = outage.max(last.sent.duration_since(since) + interval);
        }
        let (sent, ms) = (count as u64, |time: Duration| time.as_secs_f64() * 1000.0);
        ProbeReport {
            sent,
            received: sent - lost,
            lost,
            duplicated: self.duplicated,
            longest_outage_ms: ms(outage),
            longest_gap_ms: ms(self.longest_gap),
            longest_pause_ms: ms(pause),
            slowest_ms: ms(slowest),
            first_loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten packets, one every 10 ms, some of them answered after 1 ms.
    fn log(answers: &[u64]) -> FlowLog {
        let (start, mut log) = (Instant::now(), FlowLog::default());
        let at = |ms: u64| start + Duration::from_millis(ms);
        for number in 0..10 {
            log.sent(at(number * 10));
        }
        answers.iter().for_each(|number| log.answered(*number, at(number * 10 + 1)));
        log
    }

    fn report(log: &FlowLog, until: Option<Instant>) -> ProbeReport {
        log.report(Duration::from_millis(10), until, |_| SystemTime::UNIX_EPOCH)
    }

    fn assert_near(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-6, "{left} {right}");
    }

    #[test]
    fn an_outage_lasts_until_the_next_answered_packet() {
        let report = report(&log(&[0, 1, 5, 6, 7, 8, 9]), None);
        assert_eq!((report.sent, report.received, report.lost, report.duplicated), (10, 7, 3, 0));
        assert_near(report.longest_outage_ms, 30.0);
        assert_near(report.longest_gap_ms, 40.0);
        assert_near(report.longest_pause_ms, 10.0);
        assert_near(report.slowest_ms, 1.0);
        assert!(report.first_loss.is_some());
    }

    #[test]
    fn an_outage_at_the_end_counts_too() {
        assert_near(report(&log(&[0, 1, 2, 3, 4, 5]), None).longest_outage_ms, 40.0);
    }

    #[test]
    fn an_answer_that_comes_twice_is_counted_once_and_as_a_duplicate() {
        let report = report(&log(&[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 9]), None);
        assert_eq!((report.received, report.lost, report.duplicated), (10, 0, 2));
    }

    #[test]
    fn packets_are_spread_over_the_moments_in_which_they_were_sent() {
        let log = log(&[0, 1, 2, 3, 4, 6]);
        let step = Duration::from_millis(30);
        let mut moments: Vec<Moment> = (0..3).map(|number| Moment::at(step * number)).collect();
        log.spread(log.packets[0].sent, step, &mut moments);
        assert_eq!(
            moments.iter().map(|moment| (moment.sent, moment.lost)).collect::<Vec<_>>(),
            [(3, 0), (3, 1), (3, 2)]
        );
        assert_near(moments[0].slowest_ms, 1.0);
    }

    #[test]
    fn what_is_still_under_way_is_left_out_of_a_report_on_the_way() {
        let log = log(&[0, 1, 2]);
        let half = log.packets[3].sent;
        assert_eq!((report(&log, Some(half)).sent, report(&log, Some(half)).lost), (3, 0));
    }
}
