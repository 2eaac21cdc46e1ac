//! A backend on the bench: loaded, configured, and asked exactly as the daemon asks.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use twill_model::{Family, Intent, Mac, NodePlan, Peer};
use twill_sandbox::{Loaded, Sandbox};

use super::cluster::Site;
use crate::backend::planning::{self, BackendId, NodeError, Outcome, Planner, Question};
use crate::config::NetConf;
use crate::intent::policy::Holder;
use crate::intent::wanted::{Owner, Plan, Wanted};
use crate::nodes::{Offer, PeerRecord, PeerRecordFamily};

/// A backend that can be asked.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Where it runs.
    pub sandbox: Sandbox,
    /// The component.
    pub loaded: Loaded,
    /// The type that it goes by.
    pub kind: String,
    /// Its configuration, as the daemon passes it.
    pub config: String,
    /// What the host can do.
    pub features: Vec<&'static str>,
}

/// Reads a backend's configuration as the daemon reads net-conf.json: returns its type, and the text that it gets. A
/// `Type` need not be in it.
///
/// # Errors
/// When it is no object, or not as net-conf.json wants it.
pub fn configuration(kind: &str, text: &str) -> Result<(String, String), String> {
    let wrong = |why: String| format!("the backend's configuration {text:?} {why}");
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let serde_json::Value::Object(mut object) = value else {
        return Err(wrong("is not an object; expected one as {\"Port\": 8472}".to_owned()));
    };
    if !object.keys().any(|key| key.eq_ignore_ascii_case("Type")) {
        object.insert("Type".to_owned(), kind.into());
    }
    let conf = serde_json::json!({ "Network": "10.244.0.0/14", "Backend": object });
    let conf = NetConf::parse(&conf.to_string()).map_err(|error| wrong(format!("is refused: {error}")))?;
    let backend = conf.backends.into_iter().next().ok_or_else(|| wrong("names no backend".to_owned()))?;
    Ok((backend.kind, backend.config))
}

/// What came of asking about one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerPlan {
    /// The peer.
    pub peer: String,
    /// What the daemon would show in its status: `planned`, `partial`, `unreachable`, `incomplete`, `invalid`, `rejected`
    /// by the policy, or `failed`.
    pub state: &'static str,
    /// Why there is no plan, or none for all families.
    pub reason: Option<String>,
    /// What may be put into the kernel.
    pub intents: Vec<Intent>,
}

impl PeerPlan {
    /// Whether the policy refused it, or the backend broke down over it.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self.state, "rejected" | "failed")
    }
}

impl Bench {
    /// Asks for the plan of a node and checks it.
    ///
    /// # Errors
    /// When there is no plan, or one that the policy refuses.
    pub async fn plan_node(&self, site: &Site) -> Result<Planner, NodeError> {
        let node = Arc::new(site.facts(&self.kind, &self.config, &self.features));
        let plan = planning::plan_node(&self.sandbox, &self.kind, &self.loaded, &node, |_| Holder::Free).await?;
        let id = BackendId { instance: 1, kind: self.kind.as_str().into() };
        Ok(Planner::new(id, self.loaded.clone(), node, Arc::new(plan)))
    }

    /// Asks for the plans of peers and checks them, also against each other. `on_link` tells which of them can be reached
    /// without a router.
    pub async fn plan_peers(
        &self,
        planner: &Planner,
        peers: &[PeerRecord],
        on_link: impl Fn(&PeerRecord, Family) -> bool,
    ) -> Vec<PeerPlan> {
        let question = |record: &PeerRecord| Question::about(record.clone(), |family| on_link(record, family));
        let questions = peers.iter().map(question).collect();
        let outcomes = planning::plan_peers(&self.sandbox, std::slice::from_ref(planner), questions).await;
        let own: HashSet<Mac> = planner.plan.links.iter().filter_map(|link| link.mac).collect();
        let mut wanted = Wanted::default();
        outcomes.into_iter().map(|(question, outcome)| accept(&mut wanted, &own, question.name, outcome)).collect()
    }

    /// The question about one peer; none if it cannot be sent to.
    #[must_use]
    pub fn question(&self, planner: &Planner, record: &PeerRecord, on_link: bool) -> Option<Peer> {
        Question::about(record.clone(), |_| on_link).for_planner(planner)
    }

    /// How a node presents itself to its peers, once it has a plan.
    #[must_use]
    pub fn record(&self, site: &Site, plan: &NodePlan) -> PeerRecord {
        let data = plan.publish.iter().map(|p| (p.family, p.data.clone())).collect();
        let family = |f: &twill_model::NodeFamily| PeerRecordFamily {
            family: f.family,
            subnets: vec![f.subnet],
            public: f.public,
        };
        PeerRecord {
            name: site.name.clone(),
            offers: vec![Offer { kind: self.kind.clone(), wire: Some(planning::wire(plan)), data }],
            habits: None,
            created: None,
            families: site.families.iter().map(family).collect(),
            problems: Vec::new(),
        }
    }
}

/// As the daemon takes an outcome in: no two peers may answer to the same address.
fn accept(wanted: &mut Wanted, own: &HashSet<Mac>, peer: String, outcome: Outcome) -> PeerPlan {
    let reason = outcome.reason().map(str::to_owned);
    let (state, planned) = match outcome {
        Outcome::Planned { backend, intents } => ("planned", Some((backend, intents))),
        Outcome::Partial { backend, intents, .. } => ("partial", Some((backend, intents))),
        Outcome::Unreachable(_) => ("unreachable", None),
        Outcome::Incomplete(_) => ("incomplete", None),
        Outcome::Invalid(_) => ("invalid", None),
        Outcome::Rejected(..) => ("rejected", None),
        Outcome::Failed(..) => ("failed", None),
    };
    let Some((backend, intents)) = planned else { return PeerPlan { peer, state, reason, intents: Vec::new() } };
    let plan = Plan { backend, intents: intents.clone(), receptions: Vec::new() };
    match wanted.accept(&Owner::Peer(peer.as_str().into()), plan, own) {
        Ok(_) => PeerPlan { peer, state, reason, intents },
        Err(violation) => {
            PeerPlan { peer, state: "rejected", reason: Some(violation.to_string()), intents: Vec::new() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_net_conf_is() {
        assert_eq!(
            configuration("vxlan", r#"{"vni": 7, "PSK": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#).unwrap(),
            ("vxlan".to_owned(), r#"{"Type":"vxlan","vni":7}"#.to_owned())
        );
        assert_eq!(configuration("a", r#"{"type":"Other"}"#).unwrap().0, "other");
        assert_eq!(
            configuration("a", "[]").unwrap_err(),
            "the backend's configuration \"[]\" is not an object; expected one as {\"Port\": 8472}"
        );
        assert!(configuration("a", "{").unwrap_err().starts_with("the backend's configuration \"{\" is not JSON: "));
    }
}
