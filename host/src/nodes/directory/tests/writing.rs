//! What is written into the node's own file.

use super::*;

#[tokio::test]
async fn own_annotations_and_condition_are_merged_in() {
    let fixture = Fixture::new();
    let before = r#"{
    "kind": "Node",
    "metadata": {
        "name": "n1",
        "annotations": {
            "mine": "stays",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.9"
        }
    },
    "extra": [
        1
    ]
}
"#;
    fixture.write("n1.json", before);
    fs::set_permissions(fixture.file("n1.json"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    let after = fs::read_to_string(fixture.file("n1.json")).unwrap();
    let time = after.split("\"lastHeartbeatTime\": \"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(time.len(), 20, "{time}");
    let expected = format!(
        r#"{{
    "kind": "Node",
    "metadata": {{
        "name": "n1",
        "annotations": {{
            "mine": "stays",
            "flannel.alpha.coreos.com/public-ip": "192.0.2.1",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true"
        }}
    }},
    "extra": [
        1
    ],
    "status": {{
        "conditions": [
            {{
                "type": "NetworkUnavailable",
                "status": "False",
                "reason": "FlannelIsUp",
                "message": "Flannel is running on this node",
                "lastHeartbeatTime": "{time}",
                "lastTransitionTime": "{time}"
            }}
        ]
    }}
}}
"#
    );
    assert_eq!(after, expected);
    let metadata = fs::metadata(fixture.file("n1.json")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);

    assert!(!fixture.directory().write_own("n1", &patch()).await.unwrap());
    assert_eq!(fs::metadata(fixture.file("n1.json")).unwrap().ino(), metadata.ino());
    let names: Vec<_> = fs::read_dir(fixture.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["n1.json"]);
}

#[tokio::test]
async fn yaml_stays_yaml_and_is_seen_by_the_source() {
    let fixture = Fixture::new();
    fixture.write("n1.yaml", &yaml("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    let text = fs::read_to_string(fixture.file("n1.yaml")).unwrap();
    let start = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n  annotations:\n    \
        flannel.alpha.coreos.com/kube-subnet-manager: \"true\"\n    flannel.alpha.coreos.com/public-ip: \"192.0.2.1\"\n\
        spec:\n  podCIDR: 10.1.1.0/24\nstatus:\n  conditions:\n  - type: NetworkUnavailable\n";
    assert!(text.starts_with(start), "{text}");
    fixture
        .until("announced", |f| {
            f.store.get("n1").is_some_and(|node| {
                node.annotations.len() == 2 && node.network_unavailable == Some(Condition::network_is_up())
            })
        })
        .await;
}

#[tokio::test]
async fn a_linked_manifest_is_written_where_it_is() {
    let fixture = Fixture::new();
    let outside = fixture.top.path().join("n1-outside.json");
    fs::write(&outside, json("n1", "10.1.1.0/24")).unwrap();
    std::os::unix::fs::symlink(&outside, fixture.file("n1.json")).unwrap();
    assert!(fixture.directory().write_own("n1", &patch()).await.unwrap());
    assert!(fixture.file("n1.json").is_symlink());
    assert!(fs::read_to_string(&outside).unwrap().contains("FlannelIsUp"));
}

#[tokio::test]
async fn what_cannot_be_written_is_left_alone() {
    let fixture = Fixture::new();
    let write = async |node: &str| fixture.directory().write_own(node, &patch()).await.unwrap_err().to_string();
    assert_eq!(
        write("n1").await,
        format!(
            "there is no n1.json, n1.yaml or n1.yml in {}: create a Node manifest for this node",
            fixture.folder().display()
        )
    );
    fixture.write("n1.json", "{");
    assert_eq!(
        write("n1").await,
        format!(
            "{}: it is not a proper manifest: EOF while parsing an object at line 1 column 1; repair it, then this node \
             can be announced to the others",
            fixture.file("n1.json").display()
        )
    );
    assert_eq!(fs::read_to_string(fixture.file("n1.json")).unwrap(), "{");
    fixture.write("n2.json", &json("n3", "10.1.1.0/24"));
    assert!(write("n2").await.contains("its metadata.name is \"n3\""));
}

#[tokio::test]
async fn two_nodes_write_and_the_operator_too() {
    let fixture = Fixture::new();
    for node in ["n1", "n2", "n3"] {
        fixture.write(&format!("{node}.json"), &json(node, "10.1.1.0/24"));
    }
    let fixture = fixture.start().await;
    let write = |node: &'static str| {
        let directory = fixture.directory();
        tokio::spawn(async move {
            for round in 0..100 {
                let mut patch = patch();
                patch.annotations.insert("flannel.alpha.coreos.com/round".into(), round.to_string());
                assert!(directory.write_own(node, &patch).await.unwrap());
            }
        })
    };
    let (one, two) = (write("n1"), write("n2"));
    for round in 0..100 {
        fixture.rename_over("n3.json", &json("n3", &round.to_string()));
        tokio::task::yield_now().await;
    }
    one.await.unwrap();
    two.await.unwrap();
    let round = |f: &Fixture, node| {
        f.store.get(node).and_then(|node| node.annotations.get("flannel.alpha.coreos.com/round").cloned())
    };
    fixture
        .until("the last rounds", |f| {
            let cidr = f.store.get("n3").map(|node| node.pod_cidrs.concat());
            round(f, "n1").as_deref() == Some("99")
                && round(f, "n2").as_deref() == Some("99")
                && cidr.as_deref() == Some("99")
        })
        .await;
    assert!(fixture.store.problems().is_empty(), "{:?}", fixture.store.problems());
    let mut names: Vec<_> = fs::read_dir(fixture.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["n1.json", "n2.json", "n3.json"]);
}

#[test]
fn a_write_that_fails_leaves_the_file_and_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("folder");
    fs::create_dir(&target).unwrap();
    let attributes = crate::nodes::atomic_file::Attributes { mode: 0o644, owner: None };
    assert!(crate::nodes::atomic_file::replace(&target, b"x", attributes).is_err());
    assert!(crate::nodes::atomic_file::replace(Path::new("/"), b"x", attributes).is_err());
    let names: Vec<_> = fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["folder"]);
}
