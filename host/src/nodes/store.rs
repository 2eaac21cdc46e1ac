//! Which nodes there are, and the newest state of those that changed since somebody last asked.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::record::NodeRecord;
use crate::packed::{Packed, Shelf};

/// What became of nodes since somebody last asked: their newest state, or none if they are gone.
pub type NodeChanges = BTreeMap<Arc<str>, Option<Packed<NodeRecord>>>;

/// Where a source puts nodes and the rest of the daemon takes them. Bursts collapse: between two looks only the newest
/// state of a node counts, so nothing can overflow. Once a state was taken, only a fingerprint of it stays here, which is
/// enough to see the next change.
#[derive(Debug, Default)]
pub struct NodeStore {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// A fingerprint of each node's newest state, by a hash function that nobody outside knows.
    nodes: Shelf<u64>,
    hasher: RandomState,
    changes: NodeChanges,
    /// The node that this is, whose state stays.
    own: Option<(String, Option<Packed<NodeRecord>>)>,
    problems: BTreeMap<String, String>,
    /// The places of those that nobody took yet.
    untold: BTreeSet<String>,
    /// Nodes that there are and that could never be read.
    hidden: BTreeSet<String>,
    synced: bool,
    /// Something happened that [`NodeStore::changed`] has not told yet.
    news: bool,
}

impl State {
    fn set(&mut self, name: Arc<str>, record: Option<Packed<NodeRecord>>) {
        if let Some((_, own)) = self.own.as_mut().filter(|(own, _)| **own == *name) {
            own.clone_from(&record);
        }
        self.changes.insert(name, record);
    }
}

impl NodeStore {
    /// Says which node this is, before the first state of it comes.
    pub fn set_own(&self, name: &str) {
        self.lock().own = Some((name.to_owned(), None));
    }

    /// Takes a node's newest state. Returns whether it differs from the one before.
    pub fn update(&self, record: &NodeRecord) -> bool {
        let packed = Packed::new(record);
        let mut state = self.lock();
        let print = state.hasher.hash_one(packed.as_bytes());
        if state.nodes.get(&record.name) == Some(print) {
            return false;
        }
        state.nodes.insert(&record.name, &print);
        state.set(record.name.as_str().into(), Some(packed));
        self.announce(state);
        true
    }

    /// Forgets a node. Returns whether it was known.
    pub fn remove(&self, name: &str) -> bool {
        let mut state = self.lock();
        if !state.nodes.remove(name) {
            return false;
        }
        state.set(name.into(), None);
        self.announce(state);
        true
    }

    /// The state of the node that this is, or of one whose state nobody took yet.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<NodeRecord> {
        let state = self.lock();
        let own = state.own.as_ref().filter(|(own, _)| own == name).and_then(|(_, record)| record.as_ref());
        own.or_else(|| state.changes.get(name)?.as_ref())?.get()
    }

    /// Whether there is such a node.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.lock().nodes.contains(name)
    }

    /// How many nodes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().nodes.len()
    }

    /// The names of all nodes.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.lock().nodes.names().map(Into::into).collect()
    }

    /// Nodes that changed, came or went since the last call.
    #[must_use]
    pub fn take_changes(&self) -> NodeChanges {
        std::mem::take(&mut self.lock().changes)
    }

    /// Says that every node there is has been read once: what is not here now does not exist.
    pub fn set_synced(&self) {
        let mut state = self.lock();
        if !state.synced {
            state.synced = true;
            self.announce(state);
        }
    }

    /// Whether every node there is has been read once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// Says that there is a node which could not be read so far, or that this is over.
    pub fn set_hidden(&self, name: &str, is_hidden: bool) {
        let mut state = self.lock();
        let changed = if is_hidden { state.hidden.insert(name.to_owned()) } else { state.hidden.remove(name) };
        if changed {
            self.announce(state);
        }
    }

    /// Nodes that could never be read: nobody knows what is theirs.
    #[must_use]
    pub fn hidden(&self) -> Vec<String> {
        self.lock().hidden.iter().cloned().collect()
    }

    /// Notes what is wrong at some place (a file, a watch), or that nothing is any more.
    pub fn set_problem(&self, place: &str, problem: Option<String>) {
        let mut state = self.lock();
        let known = state.problems.get(place);
        if known == problem.as_ref() {
            return;
        }
        if let Some(problem) = problem {
            state.problems.insert(place.to_owned(), problem);
            state.untold.insert(place.to_owned());
        } else {
            state.problems.remove(place);
            state.untold.remove(place);
        }
        self.announce(state);
    }

    /// What is wrong at present, by place.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.lock().problems.clone()
    }

    /// What is wrong at present and was not when this was last asked, or not so.
    pub fn take_problems(&self) -> Vec<String> {
        let mut state = self.lock();
        let untold = std::mem::take(&mut state.untold);
        untold.iter().filter_map(|place| state.problems.get(place).cloned()).collect()
    }

    /// Waits until a node, the problems or `synced` changed since this last returned. For one waiter. Before all nodes were
    /// read once there is nothing to be done about any of them, and nobody is woken.
    pub async fn changed(&self) {
        loop {
            let notified = self.changed.notified();
            if std::mem::take(&mut self.lock().news) {
                return;
            }
            notified.await;
        }
    }

    fn announce(&self, mut state: MutexGuard<'_, State>) {
        state.news = true;
        let is_synced = state.synced;
        drop(state);
        if is_synced {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn record(name: &str, cidr: &str) -> NodeRecord {
        NodeRecord {
            name: name.into(),
            uid: None,
            created: None,
            deleted: None,
            annotations: BTreeMap::new(),
            pod_cidrs: vec![cidr.into()],
            network_unavailable: None,
        }
    }

    fn has_news(store: &NodeStore) -> bool {
        pin!(store.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn bursts_collapse() {
        let store = NodeStore::default();
        assert!(!has_news(&store));
        for n in 0..1000 {
            assert!(store.update(&record("a", &n.to_string())));
        }
        assert!(store.update(&record("b", "x")));
        assert!(store.remove("b"));
        assert!(has_news(&store));
        assert!(!has_news(&store));
        assert_eq!(store.get("a").unwrap().pod_cidrs, ["999"]);
        let changes: Vec<_> = store.take_changes().into_iter().collect();
        let states = changes.iter().map(|(name, state)| (&**name, state.as_ref().map(|s| s.get().unwrap().pod_cidrs)));
        assert_eq!(states.collect::<Vec<_>>(), [("a", Some(vec!["999".to_owned()])), ("b", None)]);
        assert!(store.take_changes().is_empty());
        assert_eq!((store.count(), store.contains("a"), store.contains("b")), (1, true, false));
    }

    #[test]
    fn what_changes_nothing_wakes_nobody() {
        let store = NodeStore::default();
        store.update(&record("a", "1"));
        store.set_synced();
        store.set_problem("f", Some("p".into()));
        assert!(store.is_synced() && has_news(&store));
        assert_eq!(store.take_changes().len(), 1);
        assert!(!store.update(&record("a", "1")));
        assert!(!store.remove("b"));
        store.set_synced();
        store.set_problem("f", Some("p".into()));
        store.set_problem("g", None);
        assert!(!has_news(&store));
        assert!(store.take_changes().is_empty());
        assert_eq!((store.take_problems(), store.take_problems()), (vec!["p".to_owned()], vec![]));
        store.set_problem("f", Some("p".into()));
        assert!(store.take_problems().is_empty(), "it is the same");
        store.set_problem("f", Some("q".into()));
        store.set_problem("f", None);
        assert!(has_news(&store) && store.problems().is_empty() && store.take_problems().is_empty());
    }

    #[test]
    fn the_own_state_stays() {
        let store = NodeStore::default();
        store.set_own("a");
        store.update(&record("a", "1"));
        store.update(&record("b", "2"));
        assert!(store.get("a").is_some() && store.get("b").is_some());
        assert_eq!(store.take_changes().len(), 2);
        assert_eq!(store.get("a"), Some(record("a", "1")));
        assert_eq!(store.get("b"), None, "it was taken");
        assert!(!store.update(&record("b", "2")) && store.update(&record("b", "3")));
        assert!(store.remove("a") && store.get("a").is_none());
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let store = Arc::new(NodeStore::default());
        let waiter = tokio::spawn({
            let store = store.clone();
            async move { store.changed().await }
        });
        tokio::task::yield_now().await;
        store.update(&record("a", "1"));
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "there may be more nodes");
        store.set_synced();
        waiter.await.unwrap();
    }
}
