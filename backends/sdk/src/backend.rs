//! The trait an author implements, and the way from it to the component's exports.

use std::marker::PhantomData;

use crate::bindings::exports::twill::backend::planner::Guest;
use crate::{Descriptor, Failure, Intent, Node, NodePlan, Peer, Verdict};

/// A backend. Make it a component with [`export_backend!`](crate::export_backend).
///
/// `new` is called at the start of every call from the host and is the place to read the configuration; what it
/// returns lives until the end of that call.
pub trait Backend: Sized {
    /// Its name, for people. Which name it goes by in net-conf.json is the operator's choice.
    const NAME: &'static str;
    /// Its version, for people; mostly `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// Types of backends, beside its own type, whose nodes it can send to.
    const ACCEPTS: &'static [&'static str] = &[];
    /// What the host must be able to do: each kind of link and intent that is planned, for example `link.vxlan`,
    /// `route`, `neighbor`, `forwarding`.
    const REQUIRES: &'static [&'static str];

    /// Reads `node.config`.
    ///
    /// # Errors
    /// When the configuration is wrong, or this node is one where the backend cannot work.
    fn new(node: &Node) -> Result<Self, Failure>;

    /// What this node needs whoever its peers are, and what they must know of it.
    ///
    /// # Errors
    /// When the backend cannot work on this node.
    fn plan_node(&self, node: &Node) -> Result<NodePlan, Failure>;

    /// Everything that shall be in the kernel for one peer: 32 intents at the most.
    ///
    /// # Errors
    /// When there is no plan; the case says what the host shall do.
    fn plan_peer(&self, node: &Node, peer: &Peer) -> Result<Vec<Intent>, NotPlanned>;

    /// One verdict per peer, in their order. There is rarely a reason to write it anew.
    fn plan_peers(&self, node: &Node, peers: &[Peer]) -> Vec<Verdict> {
        peers
            .iter()
            .map(|peer| match self.plan_peer(node, peer) {
                Ok(intents) => Verdict::Plan(intents),
                Err(NotPlanned::Unreachable(why)) => Verdict::Unreachable(why),
                Err(NotPlanned::Incomplete(why)) => Verdict::Incomplete(why),
                Err(NotPlanned::Invalid(why)) => Verdict::Invalid(why),
            })
            .collect()
    }
}

/// Why a peer has no plan. Each case is named after what the host does next; the text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPlanned {
    /// Asks the next backend in the node's order of preference: this one cannot reach the peer.
    Unreachable(String),
    /// Keeps what there is and waits for the peer's next change: something has not been published yet.
    Incomplete(String),
    /// Keeps what there is and tells the operator: what the peer published makes no sense.
    Invalid(String),
}

/// The exports of a component whose backend is `B`.
#[derive(Debug)]
pub struct Exported<B>(PhantomData<B>);

impl<B: Backend> Guest for Exported<B> {
    fn describe() -> Descriptor {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Descriptor {
            name: B::NAME.into(),
            version: B::VERSION.into(),
            accepts: strings(B::ACCEPTS),
            requires: strings(B::REQUIRES),
        }
    }

    fn plan_node(node: Node) -> Result<NodePlan, Failure> {
        B::new(&node)?.plan_node(&node)
    }

    fn plan_peers(node: Node, peers: Vec<Peer>) -> Result<Vec<Verdict>, Failure> {
        Ok(B::new(&node)?.plan_peers(&node, &peers))
    }
}

/// Makes a type that implements [`Backend`] the component's backend. Once per crate; without effect in native builds,
/// so that tests may link several backends.
#[macro_export]
macro_rules! export_backend {
    ($backend:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Component = $crate::Exported<$backend>;
    $crate::bindings::export_planner!(Component with_types_in $crate::bindings);
        };
    };
}
