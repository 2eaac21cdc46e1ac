//! The policy against WireGuard links and peers that a backend may not have.

use twill_model::PublicKey;

use super::*;

const OWN: PublicKey = PublicKey([1; 32]);

fn node() -> Node {
    Node { wireguard_key: Some(OWN), ..super::node() }
}

fn tunnel(name: &str, port: u16) -> Link {
    Link { name: name.into(), kind: LinkKind::Wireguard { port }, mtu: 1420, mac: None, ..link(name) }
}

fn planned(links: Vec<Link>) -> NodePlan {
    NodePlan { pod_mtu: 1420, ..plan(links) }
}

fn with(change: impl FnOnce(&mut Link)) -> String {
    let mut wanted = tunnel("flannel-wg", 51820);
    change(&mut wanted);
    check_node(&planned(vec![wanted]), &node(), |_| Holder::Free).map_or_else(|v| v.to_string(), |()| String::new())
}

/// The peer that is wanted, as text so that a test changes one thing.
struct Wanted<'a> {
    link: &'a str,
    key: [u8; 32],
    endpoint: Option<&'a str>,
    allowed: &'a [&'a str],
    keepalive: Option<u16>,
}

const GOOD: Wanted<'_> = Wanted {
    link: "flannel-wg",
    key: [2; 32],
    endpoint: Some("192.0.2.2:51820"),
    allowed: &["10.244.2.0/24", "fd00:10:0:2::/64"],
    keepalive: Some(25),
};

impl Wanted<'_> {
    fn intent(&self) -> Intent {
        Intent::WireguardPeer {
            link: self.link.into(),
            public_key: PublicKey(self.key),
            endpoint: self.endpoint.map(|endpoint| endpoint.parse().unwrap()),
            allowed: self.allowed.iter().map(|net| net.parse().unwrap()).collect(),
            keepalive: self.keepalive,
        }
    }

    fn check(&self) -> Result<(), String> {
        let links = [tunnel("flannel-wg", 51820), link("flannel.1")];
        check_peer(&[self.intent()], &peer(), &node(), &links).map_err(|violation| violation.to_string())
    }

    /// The rule that it breaks.
    fn broken(&self) -> String {
        let error = self.check().unwrap_err();
        error.rsplit_once(&format!("dev {}: ", self.link)).unwrap().1.to_owned()
    }
}

#[test]
fn links() {
    assert_eq!(with(|_| {}), "");
    assert_eq!(with(|l| l.mtu = 1501), "link flannel-wg: MTU 1501 is not in 576 to 1500");
    assert_eq!(
        with(|l| l.kind = LinkKind::Wireguard { port: 0 }),
        "link flannel-wg: its port is 0, and peers have to know it"
    );
    assert_eq!(with(|l| l.mac = Some(Mac([2, 0, 0, 0, 0, 1]))), "link flannel-wg: a WireGuard link has no MAC address");
    let keyless = check_node(&planned(vec![tunnel("flannel-wg", 51820)]), &super::node(), |_| Holder::Free);
    assert_eq!(
        keyless.unwrap_err().to_string(),
        "link flannel-wg: its backend does not require link.wireguard, so the node has no key pair for it"
    );
    let pair = |port| planned(vec![tunnel("flannel-wg", 51820), tunnel("flannel-wg-v6", port)]);
    assert_eq!(check_node(&pair(51821), &node(), |_| Holder::Free), Ok(()));
    assert_eq!(
        check_node(&pair(51820), &node(), |_| Holder::Free).unwrap_err().to_string(),
        "link flannel-wg-v6: another link listens on port 51820"
    );
}

#[test]
fn peers() {
    assert_eq!(GOOD.check(), Ok(()));
    assert_eq!(Wanted { endpoint: None, keepalive: None, allowed: &[], ..GOOD }.check(), Ok(()));
    assert_eq!(Wanted { endpoint: Some("[2001:db8::2]:1"), allowed: &["10.244.2.7/32"], ..GOOD }.check(), Ok(()));

    assert_eq!(Wanted { link: "eth0", ..GOOD }.broken(), "eth0 is not a link of this backend");
    assert_eq!(Wanted { link: "flannel.1", ..GOOD }.broken(), "only a WireGuard link has peers");
    for key in [OWN.0, [0; 32]] {
        assert_eq!(Wanted { key, ..GOOD }.broken(), "its public key is nobody's, or the node's own");
    }
    assert_eq!(Wanted { keepalive: Some(0), ..GOOD }.broken(), "its keepalive is 0 seconds; 1 to 65535, or none");
}

#[test]
fn where_packets_to_a_peer_may_go() {
    for endpoint in ["192.0.2.1:51820", "192.0.2.9:51820", "[2001:db8::9]:51820", "10.244.2.1:51820"] {
        let rule = format!("its endpoint {endpoint} is not an address of the peer");
        assert_eq!(Wanted { endpoint: Some(endpoint), ..GOOD }.broken(), rule);
    }
    assert_eq!(Wanted { endpoint: Some("192.0.2.2:0"), ..GOOD }.broken(), "the port of its endpoint is 0");
}

#[test]
fn what_a_peer_may_send() {
    for net in ["0.0.0.0/0", "::/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.3.0/24", "192.0.2.2/32"] {
        let rule = format!("its allowed {net} is not in the peer's subnets");
        assert_eq!(Wanted { allowed: &["10.244.2.0/24", net], ..GOOD }.broken(), rule);
    }
    assert_eq!(Wanted { allowed: &["10.244.2.1/24"], ..GOOD }.broken(), "its allowed 10.244.2.1/24 has host bits");
}

#[test]
fn one_peer_once() {
    let links = [tunnel("flannel-wg", 51820), tunnel("flannel-wg-v6", 51821)];
    let other = Wanted { link: "flannel-wg-v6", ..GOOD };
    assert_eq!(check_peer(&[GOOD.intent(), other.intent()], &peer(), &node(), &links), Ok(()));
    let twice = Wanted { keepalive: None, ..GOOD };
    assert_eq!(
        check_peer(&[GOOD.intent(), twice.intent()], &peer(), &node(), &links).unwrap_err().to_string(),
        "wireguard peer AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI= endpoint 192.0.2.2:51820 dev flannel-wg: planned twice"
    );
    let for_the_node = NodePlan { intents: vec![GOOD.intent()], ..planned(vec![tunnel("flannel-wg", 51820)]) };
    let error = check_node(&for_the_node, &node(), |_| Holder::Free).unwrap_err();
    assert_eq!(error.rule, "only a peer's plan may have it");
}
