use std::io::Write;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<NetConf, String> {
    NetConf::parse(text).map_err(|error| error.to_string())
}

fn networks(text: &str) -> Vec<String> {
    parse(text).unwrap().networks.iter().map(ToString::to_string).collect()
}

#[test]
fn flannels_own_file() {
    let text = r#"{"Network":"10.244.0.0/16","EnableNFTables":false,"Backend":{"Type":"vxlan"}}"#;
    assert_eq!(
        parse(text).unwrap(),
        NetConf {
            networks: vec!["10.244.0.0/16".parse().unwrap()],
            nftables: false,
            firewall: FirewallConf {
                masquerade: Family::ALL.to_vec(),
                random_fully: true,
                except: vec![],
                nftables_compat: false,
            },
            backends: vec![BackendConfig::vxlan()],
            allow_disruption: false,
        }
    );
}

#[test]
fn families() {
    let dual = r#"{"EnableIPv6":true,"IPv6Network":"fd00:10:244::5/56","Network":"10.244.3.4/16"}"#;
    assert_eq!(networks(dual), ["10.244.0.0/16", "fd00:10:244::/56"]);
    let only = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/56","Network":"10.1.0.0/16"}"#;
    assert_eq!(networks(only), ["fd00:10:244::/56"]);
    assert_eq!(networks(r#"{"Network":"10.1.0.0/16","IPv6Network":"fd00::/56"}"#), ["10.1.0.0/16"]);
    let conf = parse(dual).unwrap();
    assert_eq!(conf.network(Family::V6), Some("fd00:10:244::/56".parse().unwrap()));
    assert_eq!(conf.families().collect::<Vec<_>>(), Family::ALL);
}

#[test]
fn keys_in_any_case_the_last_one_counts_and_unknown_ones_do_not() {
    let text = r#"{"NETWORK":"10.1.0.0/16","network":"10.2.0.0/16","Whatever":[1],"enablenftables":true,
        "backend":{"Type":"ipip"},"BACKEND":{"type":"Host-GW"}}"#;
    let conf = parse(text).unwrap();
    assert_eq!(conf.networks, ["10.2.0.0/16".parse().unwrap()]);
    assert!(conf.nftables);
    assert_eq!(conf.backends.len(), 1);
    assert_eq!(conf.backends[0].kind, "host-gw");
}

#[test]
fn null_is_as_good_as_not_there() {
    let conf = parse(r#"{"Network":"10.1.0.0/16","EnableIPv6":null,"Backend":null,"Backends":null}"#).unwrap();
    assert_eq!(conf.backends, [BackendConfig::vxlan()]);
}

#[test]
fn disruption_is_allowed_on_purpose() {
    assert!(parse(r#"{"Network":"10.1.0.0/16","allowDisruption":true}"#).unwrap().allow_disruption);
    assert_eq!(
        parse(r#"{"Network":"10.1.0.0/16","AllowDisruption":"yes"}"#).unwrap_err(),
        "AllowDisruption is \"yes\"; expected true or false, without quotes"
    );
}

#[test]
fn preference_order() {
    let conf = parse(r#"{"Network":"10.1.0.0/16","Backends":[{"Type":"host-gw"},{"Type":"vxlan","VNI":7}]}"#).unwrap();
    let kinds: Vec<_> = conf.backends.iter().map(|b| b.kind.as_str()).collect();
    assert_eq!(kinds, ["host-gw", "vxlan"]);
    assert_eq!(conf.backends[1].config, r#"{"Type":"vxlan","VNI":7}"#);
}

#[test]
fn everything_wrong_has_its_sentence() {
    let v4 = "an IPv4 network, as \"10.244.0.0/16\"";
    let v6 = "an IPv6 network, as \"fd00:10:244::/56\"";
    let rows = [
        ("[]", "the whole file must be one JSON object, as {\"Network\": \"10.244.0.0/16\"}; it is a list".to_owned()),
        ("", "not valid JSON: EOF while parsing a value (line 1, column 0)".into()),
        ("{\n  \"Network\": oops\n}", "not valid JSON: expected value (line 2, column 14)".into()),
        ("{} x", "not valid JSON: trailing characters (line 1, column 4)".into()),
        (
            "{}",
            "Network is missing although IPv4 is on: add it, as \"Network\": \"10.244.0.0/16\", or set EnableIPv4 to false"
                .into(),
        ),
        (
            r#"{"EnableIPv4":false,"EnableIPv6":true,"Network":"10.1.0.0/16"}"#,
            "IPv6Network is missing although IPv6 is on: add it, as \"IPv6Network\": \"fd00:10:244::/56\", or set \
             EnableIPv6 to false"
                .into(),
        ),
        (r#"{"EnableIPv4":false}"#, "EnableIPv4 and EnableIPv6 are both false: switch on at least one".into()),
        (r#"{"EnableIPv4":"yes"}"#, "EnableIPv4 is \"yes\"; expected true or false, without quotes".into()),
        (r#"{"EnableNFTables":1,"Network":"10.1.0.0/16"}"#, "EnableNFTables is 1; expected true or false, without quotes".into()),
        (r#"{"Network":""}"#, format!("Network is \"\"; expected {v4}")),
        (r#"{"Network":10}"#, format!("Network is 10; expected {v4}")),
        (r#"{"Network":"10.1.0.0"}"#, format!("Network is \"10.1.0.0\"; expected {v4}")),
        (r#"{"Network":"10.1.0.0/33"}"#, format!("Network is \"10.1.0.0/33\"; expected {v4}")),
        (r#"{"Network":"fd00::/56"}"#, format!("Network is \"fd00::/56\"; expected {v4}")),
        (r#"{"Network":"10.1.0.0/16","IPv6Network":"10.2.0.0/16"}"#, format!("IPv6Network is \"10.2.0.0/16\"; expected {v6}")),
        (r#"{"Network":"10.1.0.0/16","IPv6Network":""}"#, format!("IPv6Network is \"\"; expected {v6}")),
        (r#"{"Network":"0.0.0.0/0"}"#, "Network 0.0.0.0/0 is too large: its prefix length must be from 4 to 30".into()),
        (r#"{"Network":"10.1.2.3/31"}"#, "Network 10.1.2.2/31 is too small: its prefix length must be from 4 to 30".into()),
        (
            r#"{"Network":"10.1.0.0/16","IPv6Network":"::/0"}"#,
            "IPv6Network ::/0 is too large: its prefix length must be from 7 to 126".into(),
        ),
        (
            r#"{"Network":"127.1.0.0/16"}"#,
            "Network 127.1.0.0/16 overlaps 127.0.0.0/8 (loopback), where no pod can have an address: choose another network"
                .into(),
        ),
        (
            r#"{"Network":"168.0.0.0/7"}"#,
            "Network 168.0.0.0/7 overlaps 169.254.0.0/16 (link-local), where no pod can have an address: choose another \
             network"
                .into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","IPv6Network":"fe80::/64"}"#,
            "IPv6Network fe80::/64 overlaps fe80::/10 (link-local), where no pod can have an address: choose another network"
                .into(),
        ),
        (r#"{"Network":"10.1.0.0/16","SubnetLen":"24"}"#, "SubnetLen is \"24\"; expected a whole number".into()),
        (r#"{"Network":"10.1.0.0/16","SubnetLen":-1}"#, "SubnetLen is -1; expected a whole number".into()),
        (r#"{"Network":"10.1.0.0/16","IPv6SubnetLen":1.5}"#, "IPv6SubnetLen is 1.5; expected a whole number".into()),
        (r#"{"Network":"10.1.0.0/16","SubnetMin":""}"#, "SubnetMin is \"\"; expected an IPv4 address".into()),
        (r#"{"Network":"10.1.0.0/16","subnetmax":"fd00::1"}"#, "SubnetMax is \"fd00::1\"; expected an IPv4 address".into()),
        (r#"{"Network":"10.1.0.0/16","IPv6SubnetMin":"10.0.0.1"}"#, "IPv6SubnetMin is \"10.0.0.1\"; expected an IPv6 address".into()),
        (r#"{"Network":"10.1.0.0/16","Backend":{}}"#, "Backend has no Type: add one, as \"Type\": \"vxlan\"".into()),
        (
            r#"{"Network":"10.1.0.0/16","Backend":[]}"#,
            "Backend is []; expected an object, as {\"Type\": \"vxlan\"}".into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","Backends":[{"Type":"vxlan"},{}]}"#,
            "Backends[1] has no Type: add one, as \"Type\": \"vxlan\"".into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","Backends":[]}"#,
            "Backends is empty: name at least one backend, as \"Backends\": [{\"Type\": \"vxlan\"}], or leave the key out"
                .into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","Backends":{"Type":"vxlan"}}"#,
            "Backends is {\"Type\":\"vxlan\"}; expected a list of objects, the most preferred first".into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","Backends":[{"Type":"vxlan"},{"Type":"VXLAN"}]}"#,
            "Backends names \"vxlan\" twice: each type can be attached once".into(),
        ),
        (
            r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"},"Backends":[{"Type":"vxlan"}]}"#,
            "both Backend and Backends are there: keep Backend for one backend, or Backends for a list in order of \
             preference"
                .into(),
        ),
    ];
    for (text, message) in rows {
        assert_eq!(parse(text), Err(message), "{text}");
    }
}

#[test]
fn valid_subnet_keys_are_read_and_ignored() {
    let text = r#"{"Network":"10.1.0.0/16","SubnetLen":24,"SubnetMin":"10.1.1.0","SubnetMax":"10.1.9.0",
        "IPv6SubnetLen":64,"IPv6SubnetMin":"fd00::","IPv6SubnetMax":"fd00:1::"}"#;
    assert_eq!(networks(text), ["10.1.0.0/16"]);
}

#[test]
fn a_file_says_where_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net-conf.json");
    let shown = path.display();
    let load = || NetConf::read(&path).map(|(_, conf)| conf).map_err(|error| error.to_string());
    let write = |bytes: &[u8]| std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();

    assert_eq!(
        load().unwrap_err(),
        format!("there is no network configuration {shown}: create it, or name another file with --net-config-path")
    );
    write(b"{\"Network\":\"10.1.0.0/16\",\n}");
    assert_eq!(
        load().unwrap_err(),
        format!("the network configuration {shown} is wrong: not valid JSON: trailing comma (line 2, column 1)")
    );
    write(b"{\"Network\":\n \"\xff\"}");
    assert_eq!(
        load().unwrap_err(),
        format!(
            "the network configuration {shown} is wrong: not valid JSON: a byte that is not UTF-8 (line 2, column 3)"
        )
    );
    write(b"{\"Network\":\"10.1.0.0/16\"}");
    assert!(load().is_ok());

    let error = NetConf::read(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read the network configuration {}: ", folder.path().display())));
    assert!(error.ends_with("; check the file and its permissions, or name another with --net-config-path"));
}

/// A key with the case of each letter chosen at random.
fn any_case(key: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<bool>(), key.len()).prop_map(move |upper| {
        key.chars().zip(upper).map(|(c, u)| if u { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
    })
}

proptest! {
    #[test]
    fn the_last_of_any_spelling_wins(
        given in proptest::collection::vec((any_case("Network"), 0u8..=255), 1..6),
        vni in proptest::collection::vec((any_case("VNI"), 1u32..9), 1..4),
        backend in any_case("Backend"),
        kind in any_case("Type"),
    ) {
        let vnis: Vec<String> = vni.iter().map(|(key, n)| format!("\"{key}\":{n}")).collect();
        let mut members: Vec<String> = given.iter().map(|(key, n)| format!("\"{key}\":\"10.{n}.0.0/16\"")).collect();
        members.push(format!("\"{backend}\":{{\"{kind}\":\"vxlan\",{}}}", vnis.join(",")));
        let conf = NetConf::parse(&format!("{{{}}}", members.join(","))).unwrap();
        prop_assert_eq!(conf.networks[0].to_string(), format!("10.{}.0.0/16", given.last().unwrap().1));
        let (key, n) = vni.last().unwrap();
        prop_assert_eq!(&conf.backends[0].config, &format!("{{\"{kind}\":\"vxlan\",\"{key}\":{n}}}"));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = NetConf::parse(&text);
    }

    #[test]
    fn no_value_makes_it_panic(
        key in proptest::sample::select(vec![
            "Network", "IPv6Network", "EnableIPv4", "EnableIPv6", "SubnetLen", "SubnetMin", "Backend", "Backends",
        ]),
        value in proptest::sample::select(vec![
            "1", "-1", "1e300", "\"\"", "\"x\"", "\"10.0.0.0/8\"", "\"::/0\"", "[]", "[[]]", "{}", "[{}]", "null", "true",
            "{\"Type\":{}}", "[{\"Type\":\"a\"},{\"Type\":\"A\"}]", "\"1.2.3.4\"",
        ]),
    ) {
        let text = format!("{{\"Network\":\"10.0.0.0/8\",\"{key}\":{value}}}");
        if let Ok(conf) = NetConf::parse(&text) {
            prop_assert!(!conf.networks.is_empty() && !conf.backends.is_empty());
        }
    }
}
