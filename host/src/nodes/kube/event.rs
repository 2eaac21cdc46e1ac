//! Kubernetes Events of the own Node: `kubectl describe node` shows them where operators look first.
//!
//! They are written as the kubelet writes its own: in the namespace `default`, with the node's name as uid. The same words
//! again within ten minutes count up the Event that is there, and there is a bound on new ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Error};
use serde_json::json;

use super::FIELD_MANAGER;
use crate::nodes::clock::rfc3339;

const PATH: &str = "/api/v1/namespaces/default/events";
/// So long the same words count up one Event.
const SAME: Duration = Duration::from_secs(600);
/// New Events at once, ...
const BURST: f64 = 25.0;
/// ... and one more after each of these. Both are what Kubernetes' own components allow themselves.
const REFILL: Duration = Duration::from_secs(300);
/// The longest message that the server takes.
const LONGEST_MESSAGE: usize = 1024;

/// How much an Event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Good to know.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something that an operator must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    /// How much it matters.
    pub importance: Importance,
    /// One word in camel case, `NoPodCIDR` for example.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    recent: VecDeque<Recent>,
    allowance: f64,
    refilled: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { recent: VecDeque::new(), allowance: BURST, refilled: Instant::now() }
    }
}

#[derive(Debug, Clone)]
struct Recent {
    event: NodeEvent,
    name: String,
    count: u32,
    first: Instant,
}

/// What to do about an Event.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    /// Count up the Event of this name to this.
    Count(String, u32),
    /// Too many.
    Drop,
}

impl Told {
    fn step(&mut self, event: &NodeEvent, now: Instant) -> Step {
        self.recent.retain(|recent| now.duration_since(recent.first) < SAME);
        if let Some(recent) = self.recent.iter_mut().find(|recent| recent.event == *event) {
            recent.count += 1;
            return Step::Count(recent.name.clone(), recent.count);
        }
        let refill = now.duration_since(self.refilled).as_secs_f64() / REFILL.as_secs_f64();
        self.allowance = (self.allowance + refill).min(BURST);
        self.refilled = now;
        if self.allowance < 1.0 {
            return Step::Drop;
        }
        self.allowance -= 1.0;
        Step::Create
    }
}

impl Recorder {
    /// Writes an Event, or counts it up.
    pub(super) async fn tell(&self, client: Client, node: &str, event: &NodeEvent) -> Result<(), Error> {
        let step = self.told().step(event, Instant::now());
        let (now, request) = (SystemTime::now(), Request::new(PATH));
        let request = match step {
            Step::Drop => return Ok(()),
            Step::Count(name, count) => {
                let body = json!({"count": count, "lastTimestamp": rfc3339(now)});
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                request.patch(&name, &params, &Patch::Merge(body))
            }
            Step::Create => {
                let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                let name = format!("{node}.{nanos:x}");
                let recent = Recent { event: event.clone(), name: name.clone(), count: 1, first: Instant::now() };
                self.told().recent.push_back(recent);
                let body = body(node, &name, event, &rfc3339(now));
                request.create(&PostParams::default(), body.to_string().into_bytes())
            }
        };
        client.request::<serde::de::IgnoredAny>(request.map_err(Error::BuildRequest)?).await.map(|_| ())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn body(node: &str, name: &str, event: &NodeEvent, now: &str) -> serde_json::Value {
    let importance = match event.importance {
        Importance::Normal => "Normal",
        Importance::Warning => "Warning",
    };
    let message = &event.message[..event.message.floor_char_boundary(LONGEST_MESSAGE)];
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": importance,
        "reason": event.reason,
        "message": message,
        "source": {"component": "twill", "host": node},
        "reportingComponent": "twill",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> NodeEvent {
        NodeEvent { importance: Importance::Warning, reason: "NetworkNotReady", message: message.into() }
    }

    #[test]
    fn the_same_words_count_up() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert_eq!(told.step(&event("a"), now), Step::Create);
        told.recent.push_back(Recent { event: event("a"), name: "n.1".into(), count: 1, first: now });
        assert_eq!(told.step(&event("a"), now), Step::Count("n.1".into(), 2));
        assert_eq!(told.step(&event("b"), now), Step::Create);
        assert_eq!(told.step(&event("a"), now + SAME), Step::Create);
    }

    #[test]
    fn there_is_a_bound() {
        let (mut told, now) = (Told::default(), Instant::now());
        let made = (0..100).filter(|n| told.step(&event(&n.to_string()), now) == Step::Create).count();
        assert_eq!(made, 25);
        assert_eq!(told.step(&event("later"), now + REFILL), Step::Create);
        assert_eq!(told.step(&event("again"), now + REFILL), Step::Drop);
    }

    #[test]
    fn long_messages_are_cut() {
        let body = body("n1", "n1.1", &event(&"é".repeat(2000)), "2026-01-01T00:00:00Z");
        assert_eq!(body["message"].as_str().map(str::len), Some(1024));
    }
}
