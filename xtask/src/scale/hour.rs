//! An hour of a cluster, event by event: what API servers send, and how late it arrives.
//!
//! Everything is drawn from a generator with a fixed start, so that everybody gets the same hour. In its second half a new
//! version of the agent is rolled out, and each agent lists everything once.

use super::world::{AGENT_EVENT, AGENT_WAKE, DELTA, SLICE, Source, World};

/// Seconds.
const HOUR: f64 = 3600.0;
/// When the rollout begins.
const ROLLOUT: f64 = 1800.0;
/// A watch that is so far behind is closed by the server, and whoever had it lists again.
const TOO_LATE: f64 = 60.0;
/// A slice is written so often at the most, with all that changed in it.
const SLICE_PAUSE: f64 = 1.0;

/// What happens at an API server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    /// Every watcher gets one.
    Told,
    /// A watcher begins anew.
    Restarted,
}

/// What an hour was like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Hour {
    /// Events that each watcher got in a second, before the rollout.
    pub(crate) events: f64,
    /// Bytes a second from all API servers together, before the rollout.
    pub(crate) egress: f64,
    /// The same as a part of what they can send.
    pub(crate) load: f64,
    /// The same while the new version is rolled out.
    pub(crate) load_of_rollout: f64,
    /// Bytes a second that an agent receives, before the rollout.
    pub(crate) agent_bytes: f64,
    /// The part of a core that an agent needs for them.
    pub(crate) agent_cpu: f64,
    /// How late 99 of 100 events arrive, before the rollout, and during it. None: later and later.
    pub(crate) late: Option<f64>,
    pub(crate) late_in_rollout: Option<f64>,
}

/// Numbers that look random and are always the same.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// Between 0 and 1.
    fn roll(&mut self) -> f64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Hour {
    pub(crate) fn of(world: &World, source: Source) -> Hour {
        let events = timetable(world, source);
        let watchers = world.watchers(source) as f64;
        let size = |event: Event| match event {
            Event::Told => watchers * world.event(source),
            Event::Restarted => world.restart(source),
        };
        let capacity = world.servers * world.egress;
        let (mut free_at, mut bytes, mut told) = (0.0_f64, [0.0; 2], 0u64);
        let mut lateness = [Vec::new(), Vec::new()];
        for (at, event) in events {
            let part = usize::from((ROLLOUT..ROLLOUT + world.rollout).contains(&at));
            if part == 0 && at >= ROLLOUT {
                break;
            }
            bytes[part] += size(event);
            free_at = free_at.max(at) + size(event) / capacity;
            if event == Event::Told {
                told += u64::from(part == 0);
                lateness[part].push(free_at - at);
            }
        }
        let events = told as f64 / ROLLOUT;
        let egress = bytes[0] / ROLLOUT;
        let (each, cpu) = match source {
            Source::Nodes => (world.event(source), AGENT_EVENT),
            Source::Relays => (DELTA, AGENT_WAKE),
            _ => (world.event(source), AGENT_WAKE),
        };
        // A relay tells its agents one after another.
        let hop = if source == Source::Relays { world.fan_out as f64 * AGENT_WAKE } else { 0.0 };
        let late = lateness.map(|late| ninety_nine(late).map(|late| late + hop));
        Hour {
            events,
            egress,
            load: egress / capacity,
            load_of_rollout: bytes[1] / world.rollout / capacity,
            agent_bytes: events * each,
            agent_cpu: events * cpu,
            late: late[0],
            late_in_rollout: late[1],
        }
    }
}

/// All events at API servers, in order.
fn timetable(world: &World, source: Source) -> Vec<(f64, Event)> {
    let mut dice = Dice(world.nodes);
    let mut events = Vec::new();
    if source.beats() {
        for _ in 0..world.nodes {
            let mut at = dice.roll() * world.heartbeat;
            while at < HOUR {
                events.push((at, Event::Told));
                // The kubelet adds up to 4 % of chance so that they do not meet.
                at += world.heartbeat * (1.0 + 0.04 * dice.roll());
            }
        }
    }
    let joins = (world.nodes as f64 * world.churn) as u64;
    let of_a_join = world.relevant + if source.beats() { world.starting } else { 0 };
    let mut changes: Vec<f64> = Vec::new();
    for _ in 0..joins {
        let (came, went) = (dice.roll() * HOUR, dice.roll() * HOUR);
        changes.extend((0..of_a_join).map(|n| came + 10.0 * n as f64));
        changes.push(went);
    }
    if source == Source::Slices {
        changes = batched(changes, world.nodes.div_ceil(SLICE), &mut dice);
    }
    events.extend(changes.into_iter().map(|at| (at, Event::Told)));
    let restarts = world.watchers(source);
    events.extend((0..restarts).map(|n| (ROLLOUT + world.rollout * n as f64 / restarts as f64, Event::Restarted)));
    events.retain(|(at, _)| *at < HOUR);
    events.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    events
}

/// Writes of slices: changes of one slice that come close together are one.
fn batched(mut changes: Vec<f64>, slices: u64, dice: &mut Dice) -> Vec<f64> {
    changes.sort_by(f64::total_cmp);
    let mut next = vec![0.0_f64; slices as usize];
    let mut writes = Vec::new();
    for at in changes {
        let slice = ((dice.roll() * slices as f64) as usize).min(next.len() - 1);
        if at >= next[slice] {
            // It waits for others, and is written at the end of its pause.
            next[slice] = at + SLICE_PAUSE;
            writes.push(next[slice]);
        }
    }
    writes
}

/// The lateness that 99 of 100 do not exceed; none if the last are so late that watches are closed.
fn ninety_nine(mut lateness: Vec<f64>) -> Option<f64> {
    if lateness.last().is_some_and(|last| *last > TOO_LATE) {
        return None;
    }
    lateness.sort_by(f64::total_cmp);
    Some(lateness.get(lateness.len().saturating_mul(99) / 100).or(lateness.last()).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_hour_for_everybody() {
        let world = World::of(1000);
        assert_eq!(Hour::of(&world, Source::Nodes), Hour::of(&world, Source::Nodes));
        assert!(timetable(&world, Source::Nodes).is_sorted_by(|(a, _), (b, _)| a <= b));
    }

    /// Against what can be said without a simulation.
    #[test]
    fn heartbeats_cost_their_square() {
        for nodes in [1000, 5000] {
            let world = World { churn: 0.0, ..World::of(nodes) };
            let hour = Hour::of(&world, Source::Nodes);
            let rate = nodes as f64 / (world.heartbeat * 1.02);
            assert!((hour.events / rate - 1.0).abs() < 0.02, "{} and {rate}", hour.events);
            let egress = rate * nodes as f64 * world.event(Source::Nodes);
            assert!((hour.egress / egress - 1.0).abs() < 0.02);
            let lists = nodes as f64 * world.list(Source::Nodes) / world.rollout;
            let expected = (egress + lists) / world.servers / world.egress;
            assert!((hour.load_of_rollout / expected - 1.0).abs() < 0.05);
        }
    }

    #[test]
    fn who_hears_no_heartbeats_hears_changes_only() {
        let world = World::of(5000);
        let quiet = World { churn: 0.0, ..world };
        for source in [Source::Objects, Source::Slices, Source::Relays] {
            assert_eq!(Hour::of(&quiet, source).egress, 0.0, "{source:?}");
        }
        let objects = Hour::of(&world, Source::Objects);
        let rate = 3.0 * 5000.0 * world.churn / HOUR;
        assert!((objects.events / rate - 1.0).abs() < 0.3, "{} and {rate}", objects.events);
        let relays = Hour::of(&world, Source::Relays);
        assert_eq!(relays.events, objects.events);
        assert!((objects.egress / relays.egress - 200.0).abs() < 1.0);
    }

    #[test]
    fn too_much_is_later_and_later() {
        let narrow = |egress| World { egress, ..World::of(1000) };
        let enough = Hour::of(&narrow(1e9), Source::Nodes);
        let needed = enough.egress / 3.0;
        assert!(enough.late.is_some_and(|late| late < 0.1), "{enough:?}");
        assert_eq!(Hour::of(&narrow(needed * 0.8), Source::Nodes).late, None);
        assert!(Hour::of(&narrow(needed * 1.5), Source::Nodes).late.is_some());
    }

    #[test]
    fn slices_gather_what_changes_together() {
        let mut dice = Dice(1);
        assert_eq!(batched(vec![0.2, 0.0, 0.9, 5.0], 1, &mut dice), [1.0, 6.0]);
        assert_eq!(batched(vec![], 3, &mut dice), [0.0; 0]);
    }

    #[test]
    fn of_a_hundred_the_last_but_one() {
        assert_eq!(ninety_nine((1..=100).map(|n| f64::from(n) / 10.0).collect()), Some(10.0));
        assert_eq!(ninety_nine(vec![]), Some(0.0));
        assert_eq!(ninety_nine(vec![1.0, 61.0]), None);
    }
}
