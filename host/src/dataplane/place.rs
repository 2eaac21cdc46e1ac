//! Where the links of backends are in the kernel.
//!
//! A backend names its links, and while one takes over from another two may want the same name for different things: the
//! old one still receives. Then the newcomer's link lives under a second name until the first is free. A link is known by
//! what it is, not by how it is called, so that a daemon that starts anew finds it under either name. Links that are the
//! same thing to two backends (a new build of a component, say) are one.

use std::collections::{BTreeSet, HashMap, HashSet};

use twill_model::{Family, Geneve, Link, LinkKind, Vxlan};
use twill_netlink::{GeneveInfo, IpipInfo, KindInfo, LinkInfo, VxlanInfo};

use super::{ALIAS, Tenant};
use crate::backend::planning::{GENEVE_PORT, VXLAN_PORT};
use crate::intent::policy::Holder;

/// Length of a kernel interface name (`IFNAMSIZ` less its final zero byte).
const LONGEST_NAME: usize = 15;

/// Where one link of a backend is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name in the kernel now, or the one to make it under.
    pub(crate) name: String,
    /// The name to give it, if that is another one and is free.
    pub(crate) rename: Option<String>,
    /// A more preferred backend has this very link and looks after it.
    pub(crate) shared: bool,
}

/// Why a link has no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The kernel has no room for both.
    #[error(
        "link {wanted} cannot be beside {existing} of backend {holder}: {why}; the change would stop what sends through it"
    )]
    Beside {
        /// The newcomer.
        wanted: String,
        /// The link that is in its way.
        existing: String,
        /// Whose that is.
        holder: String,
        /// What both have in common.
        why: &'static str,
    },
    /// Every name for it is taken or too long.
    #[error("link {0} finds no name: the name itself and its variants are taken or longer than 15 bytes")]
    Name(String),
}

/// One backend's links, in its own words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenancy<'a> {
    pub(crate) instance: u32,
    pub(crate) kind: &'a str,
    pub(crate) links: &'a [Link],
}

/// Gives every link of every backend its place; the most preferred backend comes first. `present` is what the kernel has.
pub(crate) fn places(
    tenancies: &[Tenancy<'_>],
    present: &[LinkInfo],
) -> HashMap<(u32, String), Result<Place, NoPlace>> {
    let mut found: HashMap<(u32, String), Result<Place, NoPlace>> = HashMap::new();
    // By the name in the kernel: what it is for, and whose.
    let mut claims: HashMap<String, (&Link, &str)> = HashMap::new();
    let each = || tenancies.iter().flat_map(|tenancy| tenancy.links.iter().map(move |link| (tenancy, link)));
    for (tenancy, link) in each() {
        let own = |info: &&LinkInfo| Tenant::of(info).holder(&link.kind) == Holder::Free;
        // Flannel's are only recognised by their names.
        let named = |info: &LinkInfo| info.name == link.name || is_marked(info);
        let here = present.iter().filter(own).filter(|info| named(info) && is_same(info, link));
        let here = here.max_by_key(|info| info.name == link.name);
        let Some(here) = here else { continue };
        let shared = claims.get(&here.name).is_some_and(|(other, _)| agree(other, link));
        if !shared && claims.contains_key(&here.name) {
            continue;
        }
        claims.entry(here.name.clone()).or_insert((link, tenancy.kind));
        let place = Place { name: here.name.clone(), rename: None, shared };
        found.insert((tenancy.instance, link.name.clone()), Ok(place));
    }
    for (tenancy, link) in each() {
        let key = (tenancy.instance, link.name.clone());
        if found.contains_key(&key) {
            continue;
        }
        let place = match claims.iter().find(|(_, (other, _))| agree(other, link)) {
            Some((name, _)) => Ok(Place { name: name.clone(), rename: None, shared: true }),
            None => settle(link, present, &claims),
        };
        if let Ok(place) = &place {
            claims.entry(place.name.clone()).or_insert((link, tenancy.kind));
        }
        found.insert(key, place);
    }
    let taken: HashSet<&str> = present.iter().map(|info| info.name.as_str()).collect();
    for ((_, planned), place) in &mut found {
        if let Ok(place) = place
            && place.name != *planned
            && !place.shared
            && !taken.contains(planned.as_str())
            && !claims.contains_key(planned)
        {
            place.rename = Some(planned.clone());
        }
    }
    found
}

/// Finds a name for a link that is not there yet.
fn settle(link: &Link, present: &[LinkInfo], claims: &HashMap<String, (&Link, &str)>) -> Result<Place, NoPlace> {
    for (name, (other, holder)) in claims {
        if let Some(why) = conflict(other, link) {
            let (wanted, existing, holder) = (link.name.clone(), name.clone(), (*holder).to_owned());
            return Err(NoPlace::Beside { wanted, existing, holder, why });
        }
    }
    let at = |name: String| Ok(Place { name, rename: None, shared: false });
    if !claims.contains_key(&link.name) {
        return at(link.name.clone());
    }
    let free = |name: &String| {
        name.len() <= LONGEST_NAME && !claims.contains_key(name) && !present.iter().any(|info| info.name == *name)
    };
    let mut variants = ('b'..='z').map(|letter| format!("{}-{letter}", link.name));
    variants.find(free).map_or_else(|| Err(NoPlace::Name(link.name.clone())), at)
}

fn is_marked(info: &LinkInfo) -> bool {
    info.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

/// Whether a link of the kernel is what a backend wants, or becomes so without being made anew.
fn is_same(info: &LinkInfo, wanted: &Link) -> bool {
    match (&info.kind, &wanted.kind) {
        (KindInfo::Vxlan(info), LinkKind::Vxlan(wanted)) => {
            let VxlanInfo { vni, port, local, gbp, .. } = info;
            let family = local.as_ref().is_none_or(|local| Family::of(local) == Family::of(&wanted.local));
            (*vni, port_of(*port), *gbp) == (wanted.vni, port_of(wanted.port), wanted.gbp) && family
        }
        (KindInfo::Ipip(IpipInfo { remote: None, metadata: false, .. }), LinkKind::Ipip(_)) => true,
        (KindInfo::Geneve(GeneveInfo { port, metadata: true, .. }), LinkKind::Geneve(wanted)) => {
            *port == geneve_port(*wanted)
        }
        // One of another port becomes what is wanted too, but that ends what other backends have it for.
        (KindInfo::Wireguard { port }, LinkKind::Wireguard { port: wanted_port }) => {
            info.name == wanted.name && port.is_none_or(|port| port == *wanted_port)
        }
        _ => false,
    }
}

/// Whether two backends mean the same link, though they may want it with another MTU.
fn agree(a: &Link, b: &Link) -> bool {
    let essence = |vxlan: &Vxlan| (vxlan.vni, port_of(vxlan.port), vxlan.gbp, Family::of(&vxlan.local));
    match (&a.kind, &b.kind) {
        (LinkKind::Vxlan(a), LinkKind::Vxlan(b)) => essence(a) == essence(b),
        // The kernel has no second one beside it, and gives this one another local address in place.
        (LinkKind::Ipip(_), LinkKind::Ipip(_)) => true,
        (LinkKind::Geneve(a), LinkKind::Geneve(b)) => geneve_port(*a) == geneve_port(*b),
        (LinkKind::Wireguard { port }, LinkKind::Wireguard { port: other }) => {
            (&a.name, port, families(a)) == (&b.name, other, families(b))
        }
        _ => false,
    }
}

/// Why the kernel has no room for both.
fn conflict(a: &Link, b: &Link) -> Option<&'static str> {
    let socket = |vxlan: &Vxlan| (vxlan.vni, port_of(vxlan.port), Family::of(&vxlan.local));
    match (&a.kind, &b.kind) {
        (LinkKind::Vxlan(a), LinkKind::Vxlan(b)) => {
            (socket(a) == socket(b)).then_some("both have the same VNI on the same port")
        }
        // A peer has one place for one key, and would take each for the other.
        (LinkKind::Wireguard { .. }, LinkKind::Wireguard { .. }) => {
            let both = families(a).iter().any(|family| families(b).contains(family));
            both.then_some("both have this node's one key pair, and peers cannot tell them apart")
        }
        _ => None,
    }
}

/// The families that a link carries.
fn families(link: &Link) -> BTreeSet<Family> {
    link.addresses.iter().map(Family::of_net).collect()
}

fn geneve_port(geneve: Geneve) -> u16 {
    if geneve.port == 0 { GENEVE_PORT } else { geneve.port }
}

fn port_of(port: u16) -> u16 {
    if port == 0 { VXLAN_PORT } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vxlan(vni: u32, port: u16) -> Vxlan {
        Vxlan { vni, port, local: "192.0.2.1".parse().unwrap(), learning: false, gbp: false }
    }

    fn link(name: &str, vxlan: Vxlan) -> Link {
        Link { name: name.into(), kind: LinkKind::Vxlan(vxlan), mtu: 1450, mac: None, addresses: vec![] }
    }

    fn present(name: &str, vxlan: &Vxlan, alias: Option<&str>) -> LinkInfo {
        let info =
            VxlanInfo { vni: vxlan.vni, port: port_of(vxlan.port), local: Some(vxlan.local), ..VxlanInfo::default() };
        LinkInfo {
            index: 7,
            name: name.into(),
            mtu: 1450,
            mac: None,
            up: true,
            running: true,
            kind: KindInfo::Vxlan(info),
            alias: alias.map(Into::into),
            addresses: vec![],
        }
    }

    /// Where the links of instances 1, 2, … are, given one link each.
    fn place(links: &[Link], kernel: &[LinkInfo]) -> Vec<Result<Place, NoPlace>> {
        let tenancies: Vec<Tenancy<'_>> = (1..)
            .zip(links)
            .map(|(instance, link)| Tenancy { instance, kind: kind_of(link), links: std::slice::from_ref(link) })
            .collect();
        let places = places(&tenancies, kernel);
        (1..).zip(links).map(|(instance, link)| places[&(instance, link.name.clone())].clone()).collect()
    }

    fn kind_of(link: &Link) -> &'static str {
        if matches!(link.kind, LinkKind::Vxlan(_)) { "vxlan" } else { "wireguard" }
    }

    fn at(name: &str) -> Result<Place, NoPlace> {
        Ok(Place { name: name.into(), rename: None, shared: false })
    }

    #[test]
    fn alone_it_has_its_own_name() {
        let wanted = link("flannel.1", vxlan(1, 0));
        assert_eq!(place(std::slice::from_ref(&wanted), &[]), [at("flannel.1")]);
        for alias in [Some("twill:vxlan"), None] {
            assert_eq!(
                place(std::slice::from_ref(&wanted), &[present("flannel.1", &vxlan(1, 0), alias)]),
                [at("flannel.1")]
            );
        }
        let other = present("flannel.1", &vxlan(2, 0), Some("twill:vxlan"));
        assert_eq!(place(&[wanted], &[other]), [at("flannel.1")], "nobody has it: it is made anew");
    }

    #[test]
    fn another_port_gets_a_second_name_for_a_while() {
        let (old, new) = (vxlan(1, 8472), vxlan(1, 4789));
        let both = [link("flannel.1", new.clone()), link("flannel.1", old.clone())];
        let kernel = [present("flannel.1", &old, Some("twill:vxlan"))];
        assert_eq!(place(&both, &kernel), [at("flannel.1-b"), at("flannel.1")]);
        let kernel = [kernel[0].clone(), present("flannel.1-b", &new, Some("twill:vxlan"))];
        assert_eq!(place(&both, &kernel), [at("flannel.1-b"), at("flannel.1")], "the second time as the first");
        let renamed = Ok(Place { name: "flannel.1-b".into(), rename: Some("flannel.1".into()), shared: false });
        assert_eq!(place(&both[..1], &kernel[1..]), [renamed], "once the old one is gone");
        assert_eq!(place(&both[..1], &kernel), [at("flannel.1-b")], "but not before");
    }

    #[test]
    fn a_new_build_has_the_same_link() {
        let same = [link("flannel.1", vxlan(1, 0)), link("flannel.1", vxlan(1, 8472))];
        let shared = Ok(Place { name: "flannel.1".into(), rename: None, shared: true });
        assert_eq!(place(&same, &[]), [at("flannel.1"), shared.clone()]);
        assert_eq!(place(&same, &[present("flannel.1", &vxlan(1, 0), None)]), [at("flannel.1"), shared]);
    }

    #[test]
    fn what_cannot_be_side_by_side() {
        let gbp = Vxlan { gbp: true, ..vxlan(1, 0) };
        let kernel = [present("flannel.1", &vxlan(1, 0), Some("twill:vxlan"))];
        let places = place(&[link("flannel.1", gbp), link("flannel.1", vxlan(1, 0))], &kernel);
        assert_eq!(places[1], at("flannel.1"));
        assert_eq!(
            places[0].clone().unwrap_err().to_string(),
            "link flannel.1 cannot be beside flannel.1 of backend vxlan: both have the same VNI on the same port; the \
             change would stop what sends through it"
        );
    }

    fn wireguard(name: &str, port: u16, addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        Link { kind: LinkKind::Wireguard { port }, addresses, ..link(name, vxlan(1, 0)) }
    }

    #[test]
    fn a_key_pair_is_in_one_place() {
        const FOUR: &str = "10.244.1.0/32";
        const SIX: &str = "fd00:1::/128";
        let old = wireguard("flannel-wg", 51820, &[FOUR, SIX]);
        let kernel = |alias| LinkInfo {
            kind: KindInfo::Wireguard { port: Some(51820) },
            ..present("flannel-wg", &vxlan(1, 0), alias)
        };
        for alias in [Some("twill:wireguard"), None] {
            assert_eq!(place(std::slice::from_ref(&old), &[kernel(alias)]), [at("flannel-wg")]);
        }
        let moved = wireguard("flannel-wg", 7, &[FOUR, SIX]);
        assert_eq!(place(std::slice::from_ref(&moved), &[kernel(None)]), [at("flannel-wg")], "changed in place");
        let both = place(&[moved, old.clone()], &[kernel(None)]);
        assert!(both[0].is_err() && both[1] == at("flannel-wg"), "not while somebody has it: {both:?}");

        let kernel = [kernel(Some("twill:wireguard"))];
        let shared = Ok(Place { name: "flannel-wg".into(), rename: None, shared: true });
        assert_eq!(place(&[old.clone(), old.clone()], &kernel), [at("flannel-wg"), shared]);
        let six = wireguard("flannel-wg-v6", 51821, &[SIX]);
        let refused = place(&[old, six.clone()], &kernel)[1].clone().unwrap_err().to_string();
        assert_eq!(
            refused,
            "link flannel-wg-v6 cannot be beside flannel-wg of backend wireguard: both have this node's one key pair, and \
             peers cannot tell them apart; the change would stop what sends through it"
        );
        let four = wireguard("flannel-wg", 51820, &[FOUR]);
        assert_eq!(place(&[four, six], &kernel), [at("flannel-wg"), at("flannel-wg-v6")], "one for each family");
    }

    #[test]
    fn names_that_are_too_long() {
        let links = [link("flannel-v6.1000", vxlan(1, 1)), link("flannel-v6.1000", vxlan(1, 2))];
        let kernel = [present("flannel-v6.1000", &vxlan(1, 2), Some("twill:vxlan"))];
        assert_eq!(place(&links, &kernel)[0], Err(NoPlace::Name("flannel-v6.1000".into())));
    }
}
