//! Traffic of every kind while something happens, of which nothing may be lost.

use std::thread;
use std::time::Duration;

use twill_lab::Lab;

use crate::common::{measured, what_nodes_hold};

/// Of the small packets.
pub(super) const PACE: Duration = Duration::from_millis(1);
/// What pods send in one piece if they were born under vxlan.
pub(super) const FULL: usize = 1430;
/// Before something happens, and after it.
const CALM: Duration = Duration::from_millis(500);

/// Traffic under way.
pub(crate) struct Watch(twill_lab::Watch);

impl Watch {
    /// Watches everything at the pace of a small lab.
    pub(crate) fn start(lab: &Lab, size: usize) -> Watch {
        Watch::at(lab, size, PACE)
    }

    pub(crate) fn at(lab: &Lab, size: usize, pace: Duration) -> Watch {
        let watch = Watch(twill_lab::Watch::start(lab, size, pace).unwrap());
        thread::sleep(CALM);
        watch
    }

    /// Ends it. Nothing may be lost, nothing doubled, no connection broken.
    pub(crate) fn nothing_lost(self, lab: &Lab, what: &str) {
        thread::sleep(CALM);
        let seen = self.0.stop().unwrap();
        measured(&format!("{what}: {seen}"));
        seen.traffic.check().unwrap();
        let total = seen.traffic.total();
        assert!(total.sent > 500, "{} packets are too few to tell", total.sent);
        assert!(seen.streams.iter().all(|(_, stream)| stream.received > 0), "{seen:?}");
        let harm = (total.lost, total.duplicated, seen.broken().count());
        assert_eq!(harm, (0, 0, 0), "{what}: {seen}\n{}", what_nodes_hold(lab));
    }
}
