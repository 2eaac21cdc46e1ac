use proptest::prelude::*;

use super::*;

const NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];

fn networks(count: usize) -> Vec<IpNet> {
    NETWORKS[..count].iter().map(|text| text.parse().unwrap()).collect()
}

/// A good dual-stack peer.
fn peer() -> NodeRecord {
    let annotations = [
        ("kube-subnet-manager", "true"),
        ("backend-type", "vxlan"),
        ("public-ip", "192.0.2.2"),
        ("public-ipv6", "2001:db8::2"),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:55"}"#),
        ("backend-v6-data", r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:66"}"#),
    ];
    NodeRecord {
        name: "n2".into(),
        uid: None,
        created: Some("2026-01-01T00:00:00Z".into()),
        deleted: None,
        annotations: annotations.map(|(k, v)| (format!("flannel.alpha.coreos.com/{k}"), v.to_owned())).into(),
        pod_cidrs: vec!["10.244.2.0/24".into(), "fd00:10:244:2::/64".into()],
        network_unavailable: None,
    }
}

fn set(record: &mut NodeRecord, key: &str, value: &str) {
    record.annotations.insert(format!("flannel.alpha.coreos.com/{key}"), value.to_owned());
}

fn unset(record: &mut NodeRecord, key: &str) {
    record.annotations.remove(&format!("flannel.alpha.coreos.com/{key}")).unwrap();
}

fn read(record: &NodeRecord, families: usize) -> Result<Option<PeerRecord>, NodeProblem> {
    peer_of(record, &networks(families), &AnnotationKeys::default())
}

/// The only problem of a peer that keeps its IPv4 family.
fn v6_problem(change: impl FnOnce(&mut NodeRecord)) -> String {
    let mut record = peer();
    change(&mut record);
    let read = read(&record, 2).unwrap().unwrap();
    assert_eq!(read.families.len(), 1);
    assert_eq!(read.families[0].family, Family::V4);
    assert_eq!(read.problems.len(), 1);
    read.problems.into_iter().next().unwrap()
}

#[test]
fn a_good_peer() {
    let read = read(&peer(), 2).unwrap().unwrap();
    assert_eq!(
        read,
        PeerRecord {
            name: "n2".into(),
            offers: vec![Offer {
                kind: "vxlan".into(),
                wire: None,
                data: [
                    (Family::V4, r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:55"}"#.into()),
                    (Family::V6, r#"{"VNI":1,"VtepMAC":"0e:11:22:33:44:66"}"#.into()),
                ]
                .into(),
            }],
            habits: None,
            created: Some("2026-01-01T00:00:00Z".into()),
            families: vec![
                PeerRecordFamily {
                    family: Family::V4,
                    subnets: vec!["10.244.2.0/24".parse().unwrap()],
                    public: "192.0.2.2".parse().unwrap(),
                },
                PeerRecordFamily {
                    family: Family::V6,
                    subnets: vec!["fd00:10:244:2::/64".parse().unwrap()],
                    public: "2001:db8::2".parse().unwrap(),
                },
            ],
            problems: vec![],
        }
    );
}

#[test]
fn a_family_that_is_off_does_not_matter() {
    let mut record = peer();
    set(&mut record, "public-ipv6", "rubbish");
    record.pod_cidrs.swap(0, 1);
    let read = read(&record, 1).unwrap().unwrap();
    assert_eq!(read.families.len(), 1);
    assert!(read.problems.is_empty());
}

#[test]
fn only_exactly_true_takes_part() {
    for value in ["True", "1", "", "true "] {
        let mut record = peer();
        set(&mut record, "kube-subnet-manager", value);
        assert_eq!(read(&record, 2), Ok(None), "{value:?}");
    }
    let mut record = peer();
    unset(&mut record, "kube-subnet-manager");
    assert_eq!(read(&record, 2), Ok(None));
}

#[test]
fn one_bad_family_does_not_lose_the_other() {
    let prefix = "IPv6: annotation flannel.alpha.coreos.com/public-ipv6";
    assert_eq!(v6_problem(|r| unset(r, "public-ipv6")), format!("{prefix} is missing"));
    for (value, rest) in [
        ("", " is \"\"; expected an IPv6 address"),
        ("192.0.2.2", " is \"192.0.2.2\"; expected an IPv6 address"),
        ("fe80::1%eth0", " is \"fe80::1%eth0\"; expected an IPv6 address"),
        ("::", " is ::, which is no address of a single machine"),
        ("::1", " is ::1, which is no address of a single machine"),
        ("ff02::1", " is ff02::1, which is no address of a single machine"),
        ("::ffff:192.0.2.1", " is ::ffff:192.0.2.1, which is no address of a single machine"),
        ("fd00:10:244:2::9", " is fd00:10:244:2::9, which lies inside its own podCIDR fd00:10:244:2::/64"),
    ] {
        assert_eq!(v6_problem(|r| set(r, "public-ipv6", value)), format!("{prefix}{rest}"));
    }
    assert_eq!(v6_problem(|r| r.pod_cidrs.truncate(1)), "IPv6: it has no podCIDR of this family");
    assert_eq!(v6_problem(|r| r.pod_cidrs[1] = "fd00::/x".into()), "IPv6: its podCIDR \"fd00::/x\" is not a network");
    for outside in ["fd00:10:244:100::/64", "fd00:10:244::/48"] {
        assert_eq!(
            v6_problem(|r| r.pod_cidrs[1] = outside.into()),
            format!("IPv6: its podCIDR {outside} is not inside the network fd00:10:244::/56")
        );
    }
}

#[test]
fn nothing_left_is_an_error_with_all_reasons() {
    let mut record = peer();
    set(&mut record, "public-ip", "0.0.0.0");
    record.pod_cidrs.truncate(1);
    assert_eq!(
        read(&record, 2).unwrap_err().to_string(),
        "node n2 cannot be reached by pods: IPv4: annotation flannel.alpha.coreos.com/public-ip is 0.0.0.0, which is no \
         address of a single machine; IPv6: it has no podCIDR of this family"
    );
    let mut record = peer();
    record.pod_cidrs.push("10.244.9.0/24".into());
    assert_eq!(
        read(&record, 2).unwrap_err().to_string(),
        "node n2 cannot be reached by pods: it has 3 podCIDRs; expected one of each family at the most"
    );
    let mut record = peer();
    record.pod_cidrs[1] = "10.244.9.0/24".into();
    assert_eq!(
        read(&record, 1).unwrap_err().to_string(),
        "node n2 cannot be reached by pods: IPv4: it has two podCIDRs of this family; expected one"
    );
    let mut record = peer();
    set(&mut record, "backend-type", "../../etc");
    assert_eq!(
        read(&record, 2).unwrap_err().to_string(),
        "node n2 cannot be reached by pods: annotation flannel.alpha.coreos.com/backend-type is \"../../etc\"; expected \
         the name of a backend"
    );
}

#[test]
fn published_data_is_optional_and_bounded() {
    let mut record = peer();
    unset(&mut record, "backend-data");
    set(&mut record, "backend-v6-data", &"x".repeat(LONGEST_DATA + 1));
    let read = read(&record, 2).unwrap().unwrap();
    assert!(read.offers[0].data.is_empty());
    assert_eq!(
        read.problems,
        ["IPv6: annotation flannel.alpha.coreos.com/backend-v6-data has 4097 bytes; 4096 are the most"]
    );
}

#[test]
fn a_type_may_be_empty_and_its_absence_is_noted() {
    let mut record = peer();
    set(&mut record, "backend-type", "");
    let nameless = read(&record, 2).unwrap().unwrap();
    assert!(nameless.problems.is_empty());
    assert_eq!(nameless.offers[0].kind, "alloc", "as flannel's alloc says it");
    unset(&mut record, "backend-type");
    let read = read(&record, 2).unwrap().unwrap();
    assert_eq!(read.offers[0].kind, "");
    assert_eq!(read.problems, ["annotation flannel.alpha.coreos.com/backend-type is missing"]);
}

proptest! {
    #[test]
    fn hostile_nodes_give_only_checked_values(
        kind in "\\PC{0,40}|vxlan",
        public in "\\PC{0,60}|[0-9.:a-f]{0,40}|192.0.2.2",
        public6 in "\\PC{0,60}|[0-9:a-f]{0,40}|2001:db8::2",
        data in "\\PC{0,20}",
        cidrs in proptest::collection::vec("[0-9./]{0,20}|[0-9a-f:/]{0,30}|10\\.244\\.[0-9]\\.0/2[0-9]|\\PC{0,10}", 0..4),
        families in 1usize..3,
    ) {
        let mut record = peer();
        for (key, value) in [("backend-type", &kind), ("public-ip", &public), ("public-ipv6", &public6), ("backend-data", &data)] {
            set(&mut record, key, value);
        }
        record.pod_cidrs = cidrs;
        match read(&record, families) {
            Ok(Some(read)) => {
                prop_assert!(is_type_name(&read.offers[0].kind));
                prop_assert!(!read.families.is_empty() && read.families.len() <= families);
                for family in &read.families {
                    prop_assert_eq!(Family::of(&family.public), family.family);
                    for subnet in &family.subnets {
                        prop_assert!(networks(families).iter().any(|network| network.contains(subnet)));
                        prop_assert!(!subnet.contains(&family.public));
                    }
                }
            }
            Ok(None) => prop_assert!(false, "it takes part"),
            Err(problem) => {
                prop_assert!(!problem.problems.is_empty());
                prop_assert!(problem.to_string().len() < 2000);
            }
        }
    }
}
