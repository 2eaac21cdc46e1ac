use twill_netlink::{AddressInfo, AddressScope, DefaultRoute, KindInfo, RouteTo};

use super::*;

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const DUAL: &[Family] = &Family::ALL;

fn address(text: &str) -> AddressInfo {
    let (net, flags) = text.split_once(' ').unwrap_or((text, ""));
    let has = |flag| flags.split(' ').any(|f| f == flag);
    AddressInfo {
        net: net.parse().unwrap(),
        scope: AddressScope::Global,
        permanent: !has("dynamic"),
        temporary: has("temporary"),
        deprecated: has("deprecated"),
        tentative: false,
        duplicate: has("duplicate"),
    }
}

fn link(index: u32, name: &str, addresses: &[&str]) -> LinkInfo {
    LinkInfo {
        index,
        name: name.into(),
        mtu: 1500,
        mac: None,
        up: true,
        running: true,
        kind: KindInfo::Other(None),
        alias: None,
        addresses: addresses.iter().map(|text| address(text)).collect(),
    }
}

fn default_via(links: &[Option<u32>]) -> Vec<DefaultRoute> {
    links.iter().map(|&link| DefaultRoute { link, gateway: None, metric: 0 }).collect()
}

/// eth0 and eth1 are dual-stack, eth2 has IPv4 only, bare has none.
fn machine() -> Snapshot {
    Snapshot {
        links: vec![
            link(1, "lo", &["127.0.0.1/8", "::1/128"]),
            link(2, "eth0", &["192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64", "fe80::1/64"]),
            link(3, "eth1", &["198.51.100.1/24", "2001:db8:1::1/64"]),
            link(4, "eth2", &["203.0.113.1/24"]),
            link(5, "bare", &[]),
        ],
        defaults: vec![(Family::V4, default_via(&[Some(3), Some(2)])), (Family::V6, default_via(&[Some(3)]))],
        reach: None,
    }
}

#[derive(Default)]
struct Flags<'a> {
    iface: &'a [&'a str],
    regex: &'a [&'a str],
    can_reach: Option<&'a str>,
    public: &'a [&'a str],
}

/// `name local>external …`, or the reasons.
fn choose(flags: Flags, families: &[Family], snapshot: &Snapshot) -> Result<String, String> {
    let selectors = Selectors {
        iface: flags.iface.iter().map(ToString::to_string).collect(),
        iface_regex: flags.regex.iter().map(ToString::to_string).collect(),
        can_reach: flags.can_reach.map(|text| text.parse().unwrap()),
        public: flags.public.iter().map(|text| text.parse().unwrap()).collect(),
    };
    match select(&selectors, families, snapshot) {
        Ok(selected) => {
            let mut text = selected.uplink.name;
            for SelectedFamily { local, external, .. } in selected.families {
                text += &if local == external { format!(" {local}") } else { format!(" {local}>{external}") };
            }
            Ok(text)
        }
        Err(UplinkError::Nothing { tried, .. }) => Err(tried),
        Err(other) => panic!("{other}"),
    }
}

fn ok(flags: Flags, families: &[Family]) -> String {
    choose(flags, families, &machine()).unwrap()
}

fn err(flags: Flags, families: &[Family]) -> String {
    choose(flags, families, &machine()).unwrap_err()
}

fn iface<'a>(values: &'a [&'a str]) -> Flags<'a> {
    Flags { iface: values, ..Flags::default() }
}

fn regex<'a>(values: &'a [&'a str]) -> Flags<'a> {
    Flags { regex: values, ..Flags::default() }
}

#[test]
fn by_name() {
    assert_eq!(ok(iface(&["eth0"]), V4), "eth0 192.0.2.1");
    assert_eq!(ok(iface(&["eth0"]), V6), "eth0 2001:db8::1");
    assert_eq!(ok(iface(&["eth0"]), DUAL), "eth0 192.0.2.1 2001:db8::1");
    assert_eq!(err(iface(&["eth9"]), V4), "--iface eth9: there is no interface of this name");
    assert_eq!(err(iface(&["eth2"]), DUAL), "--iface eth2: eth2 has no usable IPv6 address");
    assert_eq!(err(iface(&["lo"]), V4), "--iface lo: lo has no usable IPv4 address");
}

#[test]
fn by_address() {
    assert_eq!(ok(iface(&["192.0.2.9"]), V4), "eth0 192.0.2.9");
    assert_eq!(ok(iface(&["192.0.2.9"]), DUAL), "eth0 192.0.2.9 2001:db8::1");
    assert_eq!(ok(iface(&["fe80::1"]), V6), "eth0 fe80::1");
    assert_eq!(ok(iface(&["fe80::1"]), DUAL), "eth0 192.0.2.1 fe80::1");
    assert_eq!(err(iface(&["192.0.2.7"]), V4), "--iface 192.0.2.7: no interface has the address 192.0.2.7");
    assert_eq!(err(iface(&["fe80::1"]), V4), "--iface fe80::1: it is IPv6, which is off");
    let with_public = |public| Flags { iface: &["192.0.2.9"], public, ..Flags::default() };
    assert_eq!(ok(with_public(&["2001:db8::1"]), DUAL), "eth0 192.0.2.9 2001:db8::1");
    assert_eq!(
        err(with_public(&["2001:db8:1::1"]), DUAL),
        "--iface 192.0.2.9: eth0 has the address 192.0.2.9, but not the public IPv6 address 2001:db8:1::1"
    );
    assert_eq!(ok(with_public(&["100.64.0.1"]), V4), "eth0 192.0.2.9>100.64.0.1");
}

#[test]
fn by_public_address_when_nothing_else_is_said() {
    let public = |public| Flags { public, ..Flags::default() };
    assert_eq!(ok(public(&["192.0.2.9"]), V4), "eth0 192.0.2.9");
    assert_eq!(ok(public(&["2001:db8::1"]), V6), "eth0 2001:db8::1");
    assert_eq!(ok(public(&["2001:db8:1::1"]), DUAL), "eth1 198.51.100.1 2001:db8:1::1");
    assert_eq!(ok(public(&["198.51.100.1", "2001:db8:1::1"]), DUAL), "eth1 198.51.100.1 2001:db8:1::1");
    // The address of a family that is off does not matter.
    assert_eq!(ok(public(&["100.64.0.1", "2001:db8::1"]), V6), "eth0 2001:db8::1");
    assert_eq!(
        err(public(&["100.64.0.1"]), V4),
        "--public-ip 100.64.0.1 without an --iface flag, so as the address of an interface: no interface has the address \
         100.64.0.1"
    );
    assert_eq!(
        err(public(&["2001:db8::99"]), V6),
        "--public-ipv6 2001:db8::99 without an --iface flag, so as the address of an interface: no interface has the \
         address 2001:db8::99"
    );
    // With an interface flag it can be anything.
    let nat = Flags { iface: &["eth0"], public: &["100.64.0.1", "2001:db8::99"], ..Flags::default() };
    assert_eq!(ok(nat, DUAL), "eth0 192.0.2.1>100.64.0.1 2001:db8::1>2001:db8::99");
}

#[test]
fn by_regex() {
    assert_eq!(ok(regex(&[r"\.9$"]), V4), "eth0 192.0.2.9");
    assert_eq!(ok(regex(&[r"^198\."]), V4), "eth1 198.51.100.1");
    assert_eq!(ok(regex(&["db8:1"]), V6), "eth1 2001:db8:1::1");
    assert_eq!(ok(regex(&["th2"]), V4), "eth2 203.0.113.1");
    // Both families must match by address, ...
    assert_eq!(ok(regex(&["198|db8:1"]), DUAL), "eth1 198.51.100.1 2001:db8:1::1");
    // ... or else the name has to.
    assert_eq!(ok(regex(&["^198|eth0"]), DUAL), "eth0 192.0.2.1 2001:db8::1");
    assert_eq!(err(regex(&["^127"]), V4), "--iface-regex ^127: no interface has an address or a name that it matches");
    assert_eq!(
        err(regex(&["^198"]), DUAL),
        "--iface-regex ^198: no interface has addresses of both families or a name that it matches"
    );
    assert!(err(regex(&["("]), V4).starts_with("--iface-regex (: not a regular expression: "));
}

#[test]
fn by_what_can_be_reached() {
    let reach = |to, source: Option<&str>, families| {
        let reach = Some(RouteTo { link: 2, source: source.map(|s| s.parse().unwrap()) });
        let flags = Flags { can_reach: Some(to), ..Flags::default() };
        choose(flags, families, &Snapshot { reach, ..machine() })
    };
    assert_eq!(reach("8.8.8.8", Some("192.0.2.9"), V4).unwrap(), "eth0 192.0.2.9");
    assert_eq!(reach("8.8.8.8", None, V4).unwrap(), "eth0 192.0.2.1");
    assert_eq!(reach("8.8.8.8", Some("192.0.2.9"), DUAL).unwrap(), "eth0 192.0.2.9 2001:db8::1");
    assert_eq!(reach("2001:db8::8", Some("fe80::1"), V6).unwrap(), "eth0 2001:db8::1");
    assert_eq!(reach("8.8.8.8", None, V6).unwrap_err(), "--iface-can-reach 8.8.8.8: it is IPv4, which is off");
    assert_eq!(
        err(Flags { can_reach: Some("8.8.8.8"), ..Flags::default() }, V4),
        "--iface-can-reach 8.8.8.8: no route leads there, or it is this machine itself"
    );
}

#[test]
fn by_default_route() {
    assert_eq!(ok(Flags::default(), V4), "eth1 198.51.100.1");
    assert_eq!(ok(Flags::default(), DUAL), "eth1 198.51.100.1 2001:db8:1::1");
    let with = |v4: &[Option<u32>], v6: &[Option<u32>], families| {
        let defaults = vec![(Family::V4, default_via(v4)), (Family::V6, default_via(v6))];
        choose(Flags::default(), families, &Snapshot { defaults, ..machine() })
    };
    assert_eq!(with(&[Some(2)], &[], V4).unwrap(), "eth0 192.0.2.1");
    assert_eq!(with(&[], &[], V4).unwrap_err(), "default route: there is none for IPv4");
    assert_eq!(with(&[Some(2)], &[], DUAL).unwrap_err(), "default route: there is none for IPv6");
    assert_eq!(
        with(&[None, Some(2)], &[], V4).unwrap_err(),
        "default route: that of IPv4 has several next hops (multipath), so no single interface"
    );
    assert_eq!(
        with(&[Some(2)], &[Some(3), Some(2)], DUAL).unwrap_err(),
        "default route: that of IPv4 leaves through eth0, that of IPv6 through eth1; expected the same"
    );
    assert_eq!(
        with(&[Some(77)], &[], V4).unwrap_err(),
        "default route: it leads to the interface with index 77, which is gone"
    );
}

#[test]
fn the_first_selector_that_works_wins() {
    let flags =
        Flags { iface: &["eth9", "bare", "eth2"], regex: &["eth0"], can_reach: Some("8.8.8.8"), ..Flags::default() };
    assert_eq!(ok(flags, V4), "eth2 203.0.113.1");
    let flags = Flags { iface: &["eth9"], regex: &["eth0"], can_reach: Some("8.8.8.8"), ..Flags::default() };
    assert_eq!(ok(flags, V4), "eth0 192.0.2.1");
    let flags = Flags { iface: &["eth9", "bare"], regex: &["x"], can_reach: Some("8.8.8.8"), ..Flags::default() };
    assert_eq!(
        err(flags, V4),
        "--iface eth9: there is no interface of this name; --iface bare: bare has no usable IPv4 address; --iface-regex x: \
         no interface has an address or a name that it matches; --iface-can-reach 8.8.8.8: no route leads there, or it is \
         this machine itself"
    );
}

#[test]
fn the_best_address() {
    for (addresses, best) in [
        (vec!["192.0.2.1/24", "192.0.2.2/24"], "192.0.2.1"),
        (vec!["169.254.1.1/16", "192.0.2.2/24 dynamic"], "192.0.2.2"),
        (vec!["169.254.1.1/16"], "169.254.1.1"),
        (vec!["192.0.2.1/24 dynamic", "192.0.2.2/24"], "192.0.2.2"),
        (vec!["192.0.2.1/24 deprecated", "192.0.2.2/24 dynamic"], "192.0.2.2"),
        (vec!["127.0.0.1/8", "192.0.2.2/24"], "192.0.2.2"),
        (vec!["fe80::1/64", "fd00::1/64 dynamic temporary", "fd00::2/64 dynamic", "fd00::3/64"], "fd00::3"),
        (vec!["fe80::1/64", "fd00::1/64 dynamic temporary", "fd00::2/64 dynamic"], "fd00::2"),
        (vec!["fd00::1/64 duplicate", "fe80::1/64"], "fe80::1"),
    ] {
        let link = link(2, "eth0", &addresses);
        let family = Family::of(&best.parse().unwrap());
        assert_eq!(usable(&link, family)[0].to_string(), best, "{addresses:?}");
    }
    assert!(usable(&link(2, "eth0", &["255.255.255.255/32", "224.0.0.1/32", "0.0.0.0/0"]), Family::V4).is_empty());
}

#[test]
fn an_interface_without_mtu_is_none() {
    let mut snapshot = machine();
    snapshot.links[1].mtu = 0;
    assert_eq!(choose(iface(&["eth0"]), V4, &snapshot).unwrap_err(), "--iface eth0: eth0 has MTU 0");
}

#[test]
fn the_whole_message_names_what_there_is() {
    let message = |snapshot: &Snapshot| {
        let selectors = Selectors { iface: vec!["eth9".into()], ..Selectors::default() };
        select(&selectors, DUAL, snapshot).unwrap_err().to_string()
    };
    assert_eq!(
        message(&machine()),
        "no interface leads to the peers by IPv4 and IPv6: --iface eth9: there is no interface of this name. Choose one \
         with --iface; there are lo (127.0.0.1, ::1), eth0 (192.0.2.1, 192.0.2.9, 2001:db8::1, fe80::1), eth1 \
         (198.51.100.1, 2001:db8:1::1), eth2 (203.0.113.1)"
    );
    assert!(message(&Snapshot::default()).ends_with("there are no interfaces with addresses"));
    let many = (1..=40).map(|n| link(n, &format!("e{n}"), &["192.0.2.1/24"])).collect();
    assert!(message(&Snapshot { links: many, ..Snapshot::default() }).ends_with("e16 (192.0.2.1), 24 more"));
}

#[test]
fn public_addresses_replace_those_of_their_family() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let selectors = Selectors { public: addresses(&["192.0.2.1", "2001:db8::1"]), ..Selectors::default() };
    assert_eq!(selectors.with_public(&addresses(&["192.0.2.2"])).public, addresses(&["2001:db8::1", "192.0.2.2"]));
}
