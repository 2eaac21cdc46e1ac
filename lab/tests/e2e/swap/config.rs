//! What drives a change: the file net-conf.json, component files, references to components. Bad ones change nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};
use twill_lab::{Lab, Node, Status};

use super::component::{install, rebuilt};
use super::kernel::{difference, held};
use super::watch::{FULL, Watch};
use super::{everybody_uses, host_gw, set_backend, shape, small_lab, vxlan};
use crate::common::{allowed, everybody_reaches_everybody, guest, spec};

/// The file is refused with these words; what was there goes on.
fn refused(node: &Node, text: &str, words: &[&str]) {
    let before = node.status().unwrap();
    let generation = before.generation();
    node.write_net_conf(text).unwrap();
    let said = |status: &Status| {
        status.refusal() != before.refusal()
            && status.refusal().is_some_and(|why| words.iter().all(|word| why.contains(word)))
    };
    let status = node.wait_for(&format!("{text:?} refused with {words:?}"), Lab::PATIENCE, said).unwrap();
    assert_eq!(status.generation(), generation, "{status:#?}");
    assert!(status.ready && status.settled(), "{status:#?}");
    for word in words {
        assert!(node.log().contains(word), "no {word:?} in {}", node.log());
    }
}

#[test]
fn a_bad_net_conf_is_refused_as_a_whole() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    let node = lab.node(0);
    let before = held(&lab);
    let watch = Watch::start(&lab, FULL);
    let good = lab.spec.net_conf_with(&host_gw());
    for (text, words) in [
        (&good[..good.len() / 2], &["JSON"][..]),
        ("", &["JSON"]),
        ("[]", &["object"]),
        // What is good in it does not count either.
        (&good.replace("10.244.0.0/16", "10.244.0.0"), &["Network", "10.244.0.0"]),
        (&good.replace("host-gw", "nobody-knows-it"), &["nobody-knows-it"]),
        (&good.replace("\"Backend\"", "\"Backends\""), &["Backends"]),
        (&lab.spec.net_conf_with(&json!({"Type": "vxlan", "VNI": "one"})), &["VNI"]),
        (&lab.spec.net_conf_with(&json!({"Type": "vxlan", "Component": "file:/nowhere.wasm"})), &["/nowhere.wasm"]),
        (&good.replace("10.244.0.0/16", "10.99.0.0/16"), &["another Network"]),
    ] {
        refused(node, text, words);
        let after = held(&lab);
        assert_eq!(before, after, "{text}: {}", difference(&before, &after));
    }
    fs::remove_file(node.path("net-conf.json")).unwrap();
    node.wait_for("a missing file refused", Lab::PATIENCE, |status| {
        status.refusal().is_some_and(|why| why.contains("net-conf.json"))
    })
    .unwrap();
    lab.set_backend(&vxlan()).unwrap();
    node.wait_for("the good one again", Lab::PATIENCE, |status| status.refusal().is_none()).unwrap();
    watch.nothing_lost(&lab, "bad net-conf.json");
    let after = held(&lab);
    assert_eq!(before, after, "{}", difference(&before, &after));

    // And then a good one counts.
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    everybody_uses(&lab, "host-gw");
}

#[test]
fn a_daemon_that_starts_with_a_bad_net_conf_goes_on_with_the_last_good_one() {
    let Some(lab) = small_lab(2, vxlan()) else { return };
    lab.swap(|| lab.set_backend(&host_gw())).unwrap();
    let node = lab.node(0);
    let watch = Watch::start(&lab, FULL);
    node.kill9().unwrap();
    node.write_net_conf("{").unwrap();
    node.start().unwrap();
    let said = |status: &Status| status.settled() && status.refusal().is_some_and(|why| why.contains("JSON"));
    let status = node.wait_for("the last good one, and the reason", Lab::PATIENCE, said).unwrap();
    assert_eq!(status.backends[0].kind, "host-gw", "{status:#?}");
    set_backend(&lab, node, &host_gw());
    node.wait_for("no reason any more", Lab::PATIENCE, |status| status.refusal().is_none()).unwrap();
    watch.nothing_lost(&lab, "a start with a broken net-conf.json");
    everybody_uses(&lab, "host-gw");
}

/// A folder as the kubelet makes it of a ConfigMap: what changes is where `..data` leads.
fn mount(node: &Node, version: &str, text: &str) {
    let dir = node.path("net-conf.json").parent().unwrap().to_path_buf();
    fs::create_dir(dir.join(version)).unwrap();
    fs::write(dir.join(version).join("net-conf.json"), text).unwrap();
    symlink(version, dir.join("..data_tmp")).unwrap();
    let old = fs::read_link(dir.join("..data"));
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if let Ok(old) = old {
        fs::remove_dir_all(dir.join(old)).unwrap();
    }
}

#[test]
fn a_config_map_that_changes() {
    let Some(mut spec) = spec() else { return };
    shape(&mut spec, 2, vxlan());
    let Some(mut lab) = allowed(Lab::new(spec)) else { return };
    let text = |backend: Value| lab.spec.net_conf_with(&backend);
    let (first, second, third) = (text(vxlan()), text(host_gw()), text(vxlan()));
    for node in lab.nodes() {
        fs::remove_file(node.path("net-conf.json")).unwrap();
        mount(node, "..2026_01", &first);
        symlink("..data/net-conf.json", node.path("net-conf.json")).unwrap();
    }
    lab.start().unwrap();
    lab.add_pods().unwrap();
    let watch = Watch::start(&lab, FULL);
    let everywhere = |version: &str, text: &str| {
        lab.nodes().iter().for_each(|node| mount(node, version, text));
        Ok(())
    };
    lab.swap(|| everywhere("..2026_02", &second)).unwrap();
    everybody_uses(&lab, "host-gw");
    lab.swap(|| everywhere("..2026_03", &third)).unwrap();
    everybody_uses(&lab, "vxlan");
    watch.nothing_lost(&lab, "a ConfigMap that changes");
    everybody_reaches_everybody(&lab);
}

fn digest(bytes: &[u8], node: &Node) -> String {
    let file = node.path("to-sum");
    fs::write(&file, bytes).unwrap();
    let said = Command::new("sha256sum").arg(&file).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split(' ').next().unwrap().to_string()
}

#[test]
fn a_component_named_by_its_digest() {
    let (Some(lab), Some(file)) = (small_lab(2, vxlan()), guest("vxlan")) else { return };
    let node = lab.node(0);
    let bytes = rebuilt(&file, "pinned");
    let sum = digest(&bytes, node);
    let watch = Watch::start(&lab, FULL);

    let pinned = json!({"Type": "vxlan", "Component": format!("sha256:{sum}")});
    refused(node, &lab.spec.net_conf_with(&pinned), &[&sum]);
    // It arrives, and that is enough.
    lab.swap(|| {
        lab.nodes()[1..].iter().for_each(|node| set_backend(&lab, node, &pinned));
        install(&lab, &format!("sha256-{sum}"), &bytes);
        Ok(())
    })
    .unwrap();
    let digests =
        || lab.nodes().iter().map(|node| node.status().unwrap().backends[0].digest.clone()).collect::<Vec<_>>();
    assert_eq!(digests(), [format!("sha256:{sum}"), format!("sha256:{sum}")]);

    // A file that is not what the digest says changes nothing.
    let path = node.path("own.wasm");
    fs::write(&path, rebuilt(&file, "other")).unwrap();
    let wrong = json!({"Type": "vxlan", "Component": format!("file:{}@sha256:{sum}", path.display())});
    refused(node, &lab.spec.net_conf_with(&wrong), &["own.wasm"]);
    // The right file under that name is the same component: nothing has to change.
    fs::write(node.path("new.wasm"), &bytes).unwrap();
    fs::rename(node.path("new.wasm"), &path).unwrap();
    node.wait_for("the file accepted", Lab::PATIENCE, |status| status.refusal().is_none()).unwrap();
    assert_eq!(digests()[0], format!("sha256:{sum}"));

    lab.swap(|| lab.set_backend(&vxlan())).unwrap();
    assert_eq!(node.status().unwrap().backends[0].origin, "built-in");
    watch.nothing_lost(&lab, "components by digest");
}
