//! In the place of the kernel: keeps what is written, and tells of it.

use std::collections::HashMap;

use twill_netlink::{Key, Observed, Operation};

/// A kernel's tables on paper.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    entries: HashMap<Key, Observed>,
}

impl Recorder {
    /// Does what is asked, and returns what the kernel would tell everybody of it, in that order.
    pub(super) fn write(&mut self, operations: &[Operation]) -> Vec<(Key, Option<Observed>)> {
        let mut notices = Vec::with_capacity(operations.len());
        for operation in operations {
            let key = operation.key();
            let observed = match operation {
                Operation::Put { value, protocol, .. } => {
                    Some(Observed { value: Some(value.clone()), protocol: *protocol })
                }
                Operation::Delete { .. } => None,
            };
            match &observed {
                Some(observed) => drop(self.entries.insert(key, observed.clone())),
                None => drop(self.entries.remove(&key)),
            }
            notices.push((key, observed));
        }
        notices
    }

    /// Everything that is there.
    pub(super) fn dump(&self) -> impl Iterator<Item = (Key, Observed)> {
        self.entries.iter().map(|(key, observed)| (*key, observed.clone()))
    }
}
