//! Which rules there shall be: a pure function of the configuration and the node's pod networks.

use ipnet::IpNet;
use twill_model::Family;

/// The pod network of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodNetwork {
    /// The whole cluster's.
    pub network: IpNet,
    /// The node's own part of it.
    pub subnet: IpNet,
}

/// What the operator wants of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether and how to masquerade.
    pub masquerade: Option<Masquerade>,
    /// Whether to accept what is forwarded to and from pods.
    pub forward: bool,
}

/// How to masquerade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// The families in which to do it.
    pub families: Vec<Family>,
    /// Choose source ports at random, so that two connections made at the same time do not get the same one.
    pub random_fully: bool,
    /// Where pods' own addresses are known, so that they need no other.
    pub except: Vec<IpNet>,
    /// Exactly the rules of flannel's nftables mode, with their faults: what the node itself sends to pods of other nodes is
    /// not masqueraded, and kube-proxy's mark is only seen where it is the packet's only one.
    pub flannels_text: bool,
}

/// The two purposes of rules. Each has a chain of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Another source address for what leaves the pod network.
    Masquerade,
    /// Leave to pass for what is forwarded.
    Forward,
}

impl Group {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Masquerade, Self::Forward];
}

/// A packet's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// kube-proxy's bit is set: it masquerades by itself.
    Set,
    /// There is that bit and no other.
    Only,
}

/// kube-proxy's bit.
pub(crate) const MARK: u32 = 0x4000;

/// A condition on one of a packet's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// The network.
    pub net: IpNet,
    /// Whether the address is inside or outside.
    pub inside: bool,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves the chain.
    Return,
    /// It passes.
    Accept,
    /// It gets the address of the interface by which it leaves.
    Masquerade {
        /// With a port chosen at random.
        random_fully: bool,
    },
}

/// A rule. What is not given matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// A condition on the mark.
    pub mark: Option<Mark>,
    /// A condition on the source.
    pub source: Option<Side>,
    /// A condition on the destination.
    pub destination: Option<Side>,
    /// What happens.
    pub verdict: Verdict,
}

/// The rules of one family. A group without rules shall have no chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyRules {
    /// Which family.
    pub family: Family,
    masquerade: Vec<Rule>,
    forward: Vec<Rule>,
}

/// All rules, of both families: a family that has no pod network shall have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// IPv4 first.
    pub families: [FamilyRules; 2],
}

impl Plan {
    /// The rules for a node.
    #[must_use]
    pub fn new(settings: &Settings, pods: &[PodNetwork]) -> Self {
        let of = |family| pods.iter().find(|pod| Family::of_net(&pod.network) == family);
        Self { families: Family::ALL.map(|family| FamilyRules::new(family, settings, of(family))) }
    }

    /// No rules at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new(&Settings { masquerade: None, forward: false }, &[])
    }
}

impl FamilyRules {
    fn new(family: Family, settings: &Settings, pod: Option<&PodNetwork>) -> Self {
        let masquerade = settings.masquerade.as_ref().filter(|m| m.families.contains(&family));
        Self {
            family,
            masquerade: pod.zip(masquerade).map_or_else(Vec::new, |(pod, how)| masquerading(pod, how)),
            forward: pod.filter(|_| settings.forward).map_or_else(Vec::new, forwarding),
        }
    }

    /// The rules of a group, in order.
    #[must_use]
    pub fn group(&self, group: Group) -> &[Rule] {
        match group {
            Group::Masquerade => &self.masquerade,
            Group::Forward => &self.forward,
        }
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.masquerade.len() + self.forward.len()
    }
}

/// Everybody who is no station.
fn multicast(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert([224, 0, 0, 0].into(), 4),
        Family::V6 => IpNet::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    }
}

fn masquerading(pod: &PodNetwork, how: &Masquerade) -> Vec<Rule> {
    let family = Family::of_net(&pod.network);
    let inside = |net| Some(Side { net, inside: true });
    let outside = |net| Some(Side { net, inside: false });
    let rule = |source, destination, verdict| Rule { mark: None, source, destination, verdict };
    let stay = |source, destination| rule(source, destination, Verdict::Return);
    let masquerade = Verdict::Masquerade { random_fully: how.random_fully };
    let (cluster, own) = (pod.network, pod.subnet);
    let mark = if how.flannels_text { Mark::Only } else { Mark::Set };
    // To pods of this node from outside: they shall see who it is. Flannel's nftables mode has the two networks the wrong
    // way round, which also keeps what the node sends to other nodes' pods as it is.
    let (from, to) = if how.flannels_text { (own, cluster) } else { (cluster, own) };
    let mut rules = vec![
        Rule { mark: Some(mark), ..stay(None, None) },
        stay(inside(own), inside(cluster)),
        stay(inside(cluster), inside(own)),
        stay(outside(from), inside(to)),
    ];
    let except = how.except.iter().filter(|net| Family::of_net(net) == family);
    rules.extend(except.map(|net| stay(inside(cluster), inside(*net))));
    rules.extend([
        rule(inside(cluster), outside(multicast(family)), masquerade),
        rule(outside(cluster), inside(cluster), masquerade),
    ]);
    rules
}

fn forwarding(pod: &PodNetwork) -> Vec<Rule> {
    let cluster = Some(Side { net: pod.network, inside: true });
    let accept = Rule { mark: None, source: None, destination: None, verdict: Verdict::Accept };
    vec![Rule { source: cluster, ..accept }, Rule { destination: cluster, ..accept }]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pods() -> [PodNetwork; 2] {
        let pod = |network: &str, subnet: &str| PodNetwork {
            network: network.parse().unwrap(),
            subnet: subnet.parse().unwrap(),
        };
        [pod("10.244.0.0/16", "10.244.1.0/24"), pod("fd00:10:244::/56", "fd00:10:244:1::/64")]
    }

    pub(crate) fn settings() -> Settings {
        let masquerade =
            Masquerade { families: Family::ALL.to_vec(), random_fully: true, except: vec![], flannels_text: false };
        Settings { masquerade: Some(masquerade), forward: true }
    }

    #[test]
    fn a_family_without_a_network_has_no_rules() {
        let plan = Plan::new(&settings(), &pods()[1..]);
        assert_eq!(plan.families.each_ref().map(FamilyRules::count), [0, 8]);
        assert_eq!(Plan::nothing().families.map(|f| f.count()), [0, 0]);
    }

    #[test]
    fn each_part_has_a_switch() {
        let mut only_forward = settings();
        only_forward.masquerade = None;
        let plan = Plan::new(&only_forward, &pods());
        assert_eq!(plan.families.map(|f| (f.masquerade.len(), f.forward.len())), [(0, 2), (0, 2)]);
        let mut only_v6 = settings();
        only_v6.forward = false;
        only_v6.masquerade.as_mut().unwrap().families = vec![Family::V6];
        let plan = Plan::new(&only_v6, &pods());
        assert_eq!(plan.families.map(|f| (f.masquerade.len(), f.forward.len())), [(0, 0), (6, 0)]);
    }

    #[test]
    fn exceptions_come_before_the_masquerading_of_their_family() {
        let mut with = settings();
        let masquerade = with.masquerade.as_mut().unwrap();
        masquerade.except = ["10.0.0.0/8", "2001:db8::/32", "192.168.0.0/16"].map(|n| n.parse().unwrap()).to_vec();
        let plan = Plan::new(&with, &pods());
        let destinations = |rules: &[Rule]| -> Vec<String> {
            let texts = rules.iter().map(|r| r.destination.map_or("-".into(), |d| d.net.to_string()));
            texts.collect()
        };
        let cluster = "10.244.0.0/16";
        assert_eq!(
            destinations(&plan.families[0].masquerade),
            ["-", cluster, "10.244.1.0/24", "10.244.1.0/24", "10.0.0.0/8", "192.168.0.0/16", "224.0.0.0/4", cluster]
        );
        assert_eq!(plan.families[1].masquerade.len(), 7);
        assert!(plan.families[0].masquerade[4..6].iter().all(|r| r.verdict == Verdict::Return));
    }
}
