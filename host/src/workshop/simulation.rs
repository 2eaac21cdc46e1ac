//! A cluster on paper: does every pod reach every other?

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use twill_model::Family;

use super::bench::Bench;
use super::cluster::Layout;
use super::exchange::Exchange;
use super::walk::{Walk, walk};

/// Walks of one sort of break that are shown whole.
const SHOWN: usize = 1;
/// Sorts of breaks and refusals that are shown.
const SORTS: usize = 5;

/// What a simulation found.
#[derive(Debug, Clone, Serialize)]
pub struct Simulation {
    /// The backend's name and version, as it says itself.
    pub backend: String,
    /// Its digest, with the name of the hash before it.
    pub digest: String,
    /// The cluster, in words.
    pub cluster: String,
    /// Whether everything was allowed and everybody reaches everybody.
    pub works: bool,
    /// Pairs of pod subnets that a packet was followed between: all there are, each way.
    pub pairs: usize,
    /// Pairs between which it does not arrive.
    pub broken: usize,
    /// Nodes that have no plan, and plans that were refused: what is wrong, and how often.
    pub refused: Vec<Often>,
    /// One walk for each way in which packets do not arrive, with how many are like it; the most frequent first.
    pub breaks: Vec<Break>,
    /// A walk that arrives.
    pub example: Option<Walk>,
}

/// Something that is wrong, and how often it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Often {
    /// Where it is seen first.
    pub first: String,
    /// How often.
    pub count: usize,
}

/// A way in which packets do not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// How many pairs.
    pub count: usize,
    /// The first of them.
    pub walk: Walk,
}

impl Simulation {
    /// Lets all nodes of a cluster plan for each other, and follows a packet between all pairs of them, each way.
    pub async fn of(bench: &Bench, layout: &Layout) -> Self {
        let exchange = Exchange::between(bench, layout).await;
        let world = exchange.world();
        let count = world.machines().len();
        let (mut pairs, mut example) = (0, None);
        let mut breaks: BTreeMap<(usize, String), Break> = BTreeMap::new();
        for &family in &layout.families {
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                if from == to {
                    continue;
                }
                let Some(walk) = walk(&world, from, to, family) else { continue };
                pairs += 1;
                if walk.arrives {
                    example.get_or_insert(walk);
                } else {
                    let sort = (walk.steps.len(), first_word(&walk));
                    breaks.entry(sort).and_modify(|b| b.count += 1).or_insert(Break { count: 1, walk });
                }
            }
        }
        let mut breaks: Vec<Break> = breaks.into_values().collect();
        breaks.sort_by_key(|b| std::cmp::Reverse(b.count));
        let refused = refused(&exchange);
        let descriptor = bench.loaded.descriptor();
        Self {
            backend: format!("{} {}", descriptor.name, descriptor.version),
            digest: format!("sha256:{}", bench.loaded.digest()),
            cluster: layout.to_string(),
            works: refused.is_empty() && breaks.is_empty(),
            pairs,
            broken: breaks.iter().map(|b| b.count).sum(),
            refused,
            breaks,
            example,
        }
    }
}

/// What tells one way of breaking from another: the command of the last step, without what it is about.
fn first_word(walk: &Walk) -> String {
    let command = walk.steps.last().map(|step| step.command.as_str()).unwrap_or_default();
    let words: Vec<&str> = command.split(' ').filter(|word| word.chars().all(char::is_alphabetic)).collect();
    let family = Family::of(&walk.destination);
    format!("{family} {}", words.join(" "))
}

/// Plans that were refused and nodes without any, alike ones together.
fn refused(exchange: &Exchange) -> Vec<Often> {
    let mut sorts: BTreeMap<String, Often> = BTreeMap::new();
    let mut note = |sort: &str, first: String| {
        let sort: String = sort.chars().filter(|c| !c.is_ascii_hexdigit()).collect();
        sorts.entry(sort).and_modify(|often| often.count += 1).or_insert(Often { first, count: 1 });
    };
    for planned in &exchange.nodes {
        if let Some(error) = &planned.error {
            note(error, format!("{}: {error}", planned.node));
        }
        for peer in planned.peers.iter().filter(|peer| peer.is_wrong()) {
            let reason = peer.reason.as_deref().unwrap_or_default();
            note(reason, format!("{} for {}, {}: {reason}", planned.node, peer.peer, peer.state));
        }
    }
    let mut refused: Vec<Often> = sorts.into_values().collect();
    refused.sort_by_key(|often| std::cmp::Reverse(often.count));
    refused
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backend    {} ({})", self.backend, self.digest)?;
        writeln!(f, "cluster    {}", self.cluster)?;
        for Often { first, count } in self.refused.iter().take(SORTS) {
            let more = if *count > 1 { format!(" (and {} like it)", count - 1) } else { String::new() };
            writeln!(f, "refused    {first}{more}")?;
        }
        let (pairs, broken) = (self.pairs, self.broken);
        match broken {
            0 => writeln!(f, "walked     all {pairs} pairs of pod subnets: every packet arrives")?,
            _ => writeln!(f, "walked     all {pairs} pairs of pod subnets: {broken} packets do not arrive")?,
        }
        for Break { count, walk } in self.breaks.iter().take(SORTS) {
            write!(f, "\n{walk}")?;
            if *count > SHOWN {
                writeln!(f, "  and {} like it", count - SHOWN)?;
            }
        }
        match &self.example {
            Some(walk) => write!(f, "\n{walk}"),
            None => Ok(()),
        }
    }
}
