//! The latest state of every node, and which ones changed since somebody last asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::record::NodeRecord;

/// Where a source puts nodes and the rest of the daemon takes them. Bursts collapse: between two looks only the newest
/// state of a node counts, so nothing can overflow.
#[derive(Debug, Default)]
pub struct NodeStore {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Arc<NodeRecord>>,
    dirty: BTreeSet<String>,
    problems: BTreeMap<String, String>,
    /// Nodes that there are and that could never be read.
    hidden: BTreeSet<String>,
    synced: bool,
    /// Something happened that [`NodeStore::changed`] has not told yet.
    news: bool,
}

impl NodeStore {
    /// Takes a node's newest state. Returns whether it differs from the one before.
    pub fn update(&self, record: NodeRecord) -> bool {
        let mut state = self.lock();
        if state.nodes.get(&record.name).is_some_and(|known| **known == record) {
            return false;
        }
        state.dirty.insert(record.name.clone());
        state.nodes.insert(record.name.clone(), Arc::new(record));
        self.announce(state);
        true
    }

    /// Forgets a node. Returns whether it was known.
    pub fn remove(&self, name: &str) -> bool {
        let mut state = self.lock();
        if state.nodes.remove(name).is_none() {
            return false;
        }
        state.dirty.insert(name.to_owned());
        self.announce(state);
        true
    }

    /// The state of one node.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<NodeRecord>> {
        self.lock().nodes.get(name).cloned()
    }

    /// All nodes, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<NodeRecord>> {
        self.lock().nodes.values().cloned().collect()
    }

    /// The names of nodes that changed, came or went since the last call.
    #[must_use]
    pub fn take_dirty(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock().dirty)
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
        match problem {
            Some(problem) => state.problems.insert(place.to_owned(), problem),
            None => state.problems.remove(place),
        };
        self.announce(state);
    }

    /// What is wrong at present, by place.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.lock().problems.clone()
    }

    /// Waits until a node, the problems or `synced` changed since this last returned. For one waiter.
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
        drop(state);
        self.changed.notify_one();
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
            assert!(store.update(record("a", &n.to_string())));
        }
        assert!(store.update(record("b", "x")));
        assert!(store.remove("b"));
        assert!(has_news(&store));
        assert!(!has_news(&store));
        assert_eq!(store.take_dirty().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(store.take_dirty().is_empty());
        assert_eq!(store.get("a").unwrap().pod_cidrs, ["999"]);
        assert_eq!(store.all().len(), 1);
    }

    #[test]
    fn what_changes_nothing_wakes_nobody() {
        let store = NodeStore::default();
        store.update(record("a", "1"));
        store.set_synced();
        store.set_problem("f", Some("p".into()));
        assert!(store.is_synced() && has_news(&store));
        assert_eq!(store.take_dirty().len(), 1);
        assert!(!store.update(record("a", "1")));
        assert!(!store.remove("b"));
        store.set_synced();
        store.set_problem("f", Some("p".into()));
        store.set_problem("g", None);
        assert!(!has_news(&store));
        assert!(store.take_dirty().is_empty());
        store.set_problem("f", None);
        assert!(has_news(&store) && store.problems().is_empty());
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let store = Arc::new(NodeStore::default());
        let waiter = tokio::spawn({
            let store = store.clone();
            async move { store.changed().await }
        });
        tokio::task::yield_now().await;
        store.update(record("a", "1"));
        waiter.await.unwrap();
    }
}
