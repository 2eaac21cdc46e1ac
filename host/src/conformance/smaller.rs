//! The smallest input that still shows what is wrong.

use twill_model::{Node, Peer};

/// Calls that are spent on it.
const TRIES: usize = 60;

/// Makes an input simpler for as long as it still fails.
pub(super) async fn smallest<T: Clone + PartialEq>(
    input: T,
    simpler: impl Fn(&T) -> Vec<T>,
    mut fails: impl AsyncFnMut(&T) -> bool,
) -> T {
    let mut input = input;
    let mut tries = TRIES;
    'again: loop {
        for candidate in simpler(&input) {
            if candidate == input {
                continue;
            }
            if tries == 0 {
                return input;
            }
            tries -= 1;
            if fails(&candidate).await {
                input = candidate;
                continue 'again;
            }
        }
        return input;
    }
}

/// Simpler forms of a peer, the greatest steps first. `good` is what each part is set back to.
pub(super) fn peers(peer: &Peer, good: &Peer) -> Vec<Peer> {
    let mut simpler = Vec::new();
    let mut step = |change: &dyn Fn(&mut Peer)| {
        let mut changed = peer.clone();
        change(&mut changed);
        simpler.push(changed);
    };
    step(&|peer| peer.families.truncate(1));
    step(&|peer| drop(peer.families.drain(..peer.families.len().min(1))));
    step(&|peer| peer.name.clone_from(&good.name));
    step(&|peer| peer.backend.clone_from(&good.backend));
    for at in 0..peer.families.len() {
        let family = peer.families[at].family;
        let Some(part) = good.families.iter().find(|part| part.family == family) else { continue };
        step(&|peer| peer.families[at].published = None);
        step(&|peer| peer.families[at].published.clone_from(&part.published));
        step(&|peer| peer.families[at].subnets.clone_from(&part.subnets));
        step(&|peer| peer.families[at].public = part.public);
        step(&|peer| peer.families[at].on_link = part.on_link);
        for text in peer.families[at].published.iter().flat_map(|text| shorter(text)) {
            step(&|peer| peer.families[at].published = Some(text.clone()));
        }
    }
    for name in shorter(&peer.name) {
        step(&|peer| peer.name.clone_from(&name));
    }
    simpler
}

/// Simpler forms of a node.
pub(super) fn nodes(node: &Node, good: &Node) -> Vec<Node> {
    let mut simpler = Vec::new();
    let mut step = |change: &dyn Fn(&mut Node)| {
        let mut changed = node.clone();
        change(&mut changed);
        simpler.push(changed);
    };
    step(&|node| node.families.clone_from(&good.families));
    step(&|node| node.config.clone_from(&good.config));
    step(&|node| node.existing_links.clear());
    step(&|node| node.features.clone_from(&good.features));
    step(&|node| node.uplink.clone_from(&good.uplink));
    step(&|node| node.name.clone_from(&good.name));
    step(&|node| node.seed = good.seed);
    step(&|node| node.families.truncate(1));
    for at in 0..node.families.len() {
        let family = node.families[at].family;
        let Some(part) = good.families.iter().find(|part| part.family == family) else { continue };
        step(&|node| node.families[at].published = None);
        step(&|node| node.families[at].subnet = part.subnet);
        step(&|node| node.families[at].network = part.network);
        step(&|node| node.families[at].local = part.local);
        step(&|node| node.families[at].public = part.public);
        for text in node.families[at].published.iter().flat_map(|text| shorter(text)) {
            step(&|node| node.families[at].published = Some(text.clone()));
        }
    }
    for text in shorter(&node.config) {
        step(&|node| node.config.clone_from(&text));
    }
    simpler
}

/// A text cut to half, and without its last character.
fn shorter(text: &str) -> Vec<String> {
    let count = text.chars().count();
    let cut = |keep: usize| text.chars().take(keep).collect::<String>();
    if count == 0 { Vec::new() } else { vec![cut(count / 2), text.chars().skip(count / 2).collect(), cut(count - 1)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_matter_goes() {
        let fails = async |text: &String| text.contains("x");
        assert_eq!(smallest("aaaaaaaaaaxbbbbbbb".to_owned(), |text| shorter(text), fails).await, "x");
        let never = async |_: &String| false;
        assert_eq!(smallest("abc".to_owned(), |text| shorter(text), never).await, "abc");
    }
}
