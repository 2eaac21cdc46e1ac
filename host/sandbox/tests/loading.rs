//! Loading: what is refused and how that reads, what is kept and when it is not trusted.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::{artifact, guest, load, node, options, peers, sandbox};
use twill_model::{Intent, Verdict};
use twill_sandbox::{Artifact, Digest, Options, PeerAnswer, Precompiled, Sandbox};

async fn refused(name: &str, bytes: Vec<u8>) -> String {
    let digest = Digest::of(&bytes).short();
    let text = sandbox().load(name, artifact(name, bytes)).await.unwrap_err().to_string();
    let begin = format!("/test/{name}.wasm (sha256:{digest}) ");
    text.strip_prefix(&begin).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn what_may_be_loaded() {
    let sandbox = sandbox();
    for (name, requires) in [("vxlan", &["link.vxlan", "route", "neighbor", "forwarding"][..]), ("host-gw", &["route"])]
    {
        let loaded = load(&sandbox, name).await;
        assert_eq!(loaded.descriptor().name, name);
        assert_eq!(loaded.descriptor().version, "0.1.0");
        assert_eq!(loaded.descriptor().requires, requires);
        assert_eq!(*loaded.digest(), Digest::of(&guest(name)));
        assert!(loaded.compiling().is_some() && loaded.code_bytes() > loaded.wasm_bytes());
    }
}

#[tokio::test]
async fn what_may_not_be_loaded() {
    let files = refused("files", guest("files")).await;
    assert_eq!(
        files,
        "imports wasi:filesystem/types@0.2.6 and wasi:filesystem/preopens@0.2.6, which a backend may not have"
    );
    let sockets = refused("sockets", guest("sockets")).await;
    assert!(sockets.starts_with("imports "), "{sockets}");
    assert!(sockets.contains("wasi:sockets/tcp@0.2.6"), "{sockets}");
    assert!(sockets.ends_with(", which a backend may not have"), "{sockets}");
    assert!(!sockets.contains("wasi:io") && !sockets.contains("wasi:cli"), "{sockets}");

    let core = refused("core", b"\0asm\x01\0\0\0".to_vec()).await;
    assert_eq!(core, "is a core module, not a component: build with --target wasm32-wasip2");
    assert_eq!(refused("empty", Vec::new()).await, "is empty");
    assert_eq!(
        refused("script", b"#!/bin/sh\n".to_vec()).await,
        "is not WebAssembly: it does not begin with the bytes `\\0asm`"
    );
    assert_eq!(
        refused("other", b"\0asm\x0d\0\x01\0".to_vec()).await,
        "is not a backend for this Twill, which speaks twill:backend 1.0.0: \
         it should export twill:backend/planner@1 and exports nothing"
    );
}

/// The same component for a later contract: `@1.0.0` in its text becomes another version of the same length.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = guest("vxlan");
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&i| bytes[i..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn versions_of_the_contract() {
    let newer = renamed("twill:backend/planner@1.0.0", "twill:backend/planner@1.7.0");
    assert!(sandbox().load("newer", artifact("newer", newer)).await.is_ok(), "a later 1.x fits");
    assert_eq!(
        refused("two", renamed("twill:backend/planner@1.0.0", "twill:backend/planner@2.0.0")).await,
        "speaks twill:backend 2.0.0, and this Twill speaks 1.0.0"
    );
    assert_eq!(
        refused("type", renamed("twill:backend/types@1.0.0", "twill:backend/thing@1.1.0")).await,
        "imports twill:backend/thing@1.1.0, which this Twill does not have: it speaks twill:backend 1.0.0"
    );
    let unfit = refused("unfit", renamed("plan-peers", "plan-pears")).await;
    assert!(unfit.starts_with("does not fit twill:backend 1.0.0, which this Twill speaks: "), "{unfit}");
    assert!(unfit.contains("plan-peers"), "{unfit}");
}

/// Built once, when the contract was 1.0.0, and kept: every later host must load it, and it must answer.
#[tokio::test]
async fn what_was_built_for_the_first_release_still_answers() {
    let sandbox = sandbox();
    let golden = include_bytes!("golden/direct-1.0.0.wasm").to_vec();
    let loaded = sandbox.load("direct", artifact("direct", golden)).await.unwrap();
    assert_eq!((&*loaded.descriptor().name, &*loaded.descriptor().version), ("direct", "1.0.0"));
    assert_eq!(loaded.descriptor().requires, ["route"]);
    let plan = sandbox.plan_node(&loaded, node("", 2)).await.unwrap();
    assert_eq!((plan.pod_mtu, plan.publish.len(), &*plan.publish[1].data), (1500, 2, "\"1.0.0\""));
    for answer in sandbox.plan_peers(&loaded, node("", 2), peers(3, 2)).await.unwrap() {
        let PeerAnswer::Verdict(Verdict::Plan(intents)) = answer else { panic!("{answer:?}") };
        assert!(matches!(&intents[..], [Intent::Route(_), Intent::Route(_)]), "{intents:?}");
    }
}

#[tokio::test]
async fn damaged_components() {
    let whole = guest("vxlan");
    for keep in [9, 100, whole.len() / 2, whole.len() - 1] {
        let text = refused("cut", whole[..keep].to_vec()).await;
        assert!(text.starts_with("is damaged: ") || text.starts_with("is not a backend"), "{keep}: {text}");
    }
    let mut spoilt = whole.clone();
    let middle = spoilt.len() / 3;
    spoilt[middle..middle + 64].fill(0xff);
    let text = refused("spoilt", spoilt).await;
    assert!(text.starts_with("does not compile: "), "{text}");
}

#[tokio::test]
async fn no_compiler() {
    let sandbox = Sandbox::new(Options { compiler: "/nowhere/twill".into(), ..options() }).unwrap();
    let text = sandbox.load("vxlan", artifact("vxlan", guest("vxlan"))).await.unwrap_err().to_string();
    assert!(text.contains("the compiler process could not be run: No such file or directory"), "{text}");
    let sandbox = Sandbox::new(Options { compiler: "/bin/false".into(), ..options() }).unwrap();
    let text = sandbox.load("vxlan", artifact("vxlan", guest("vxlan"))).await.unwrap_err().to_string();
    assert!(text.ends_with("does not compile: "), "{text}");
}

#[tokio::test]
async fn compiled_ahead() {
    let wasm = guest("host-gw");
    let code = twill_engine::compiler().unwrap().precompile_component(&wasm).unwrap().leak();
    // SAFETY: the line above made the code.
    let precompiled = unsafe { Precompiled::new(Digest::of(&wasm), wasm.len(), code) };
    let sandbox = Sandbox::new(Options { compiler: "/nowhere/twill".into(), ..options() }).unwrap();
    let loaded = sandbox.load("host-gw", Artifact::Precompiled(precompiled)).await.unwrap();
    assert_eq!(loaded.descriptor().name, "host-gw");
    assert!(loaded.compiling().is_none());

    // SAFETY: not an ELF file, so nothing of it is run.
    let damaged = unsafe { Precompiled::new(Digest::of(&wasm), wasm.len(), b"no code") };
    let text = sandbox.load("host-gw", Artifact::Precompiled(damaged)).await.unwrap_err().to_string();
    assert!(text.starts_with("the built-in backend host-gw (sha256:"), "{text}");
    assert!(text.contains(") has code that does not run here: "), "{text}");
}

fn only_file(folder: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

#[tokio::test]
async fn code_is_kept_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("code");
    let sandbox = Sandbox::new(Options { cache: Some(cache.clone()), ..options() }).unwrap();
    assert!(load(&sandbox, "host-gw").await.compiling().is_some(), "new");
    assert!(load(&sandbox, "host-gw").await.compiling().is_none(), "kept");

    let file = only_file(&cache);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(load(&sandbox, "host-gw").await.compiling().is_some(), "damaged");
    assert!(load(&sandbox, "host-gw").await.compiling().is_none(), "replaced");

    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(load(&sandbox, "host-gw").await.compiling().is_some(), "a directory that others may write to");
}

/// Whole, ours, and of another engine: as after an upgrade that kept the name.
#[tokio::test]
async fn foreign_code_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(Options { cache: Some(folder.path().into()), ..options() }).unwrap();
    load(&sandbox, "host-gw").await;
    let file = only_file(folder.path());
    let magic = fs::read(&file).unwrap()[..16].to_vec();
    let foreign = b"\x7fELF of another engine";
    let digest: Vec<u8> = {
        let hex = Digest::of(foreign).to_string();
        (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    fs::write(&file, [&magic[..], &digest, foreign].concat()).unwrap();
    assert!(load(&sandbox, "host-gw").await.compiling().is_some(), "foreign");
    assert!(load(&sandbox, "host-gw").await.compiling().is_none(), "replaced");
}

#[tokio::test]
async fn vxlan_in_the_sandbox() {
    let sandbox = sandbox();
    let vxlan = load(&sandbox, "vxlan").await;
    let node = node("", 2);
    let plan = sandbox.plan_node(&vxlan, node.clone()).await.unwrap();
    assert_eq!(
        plan.links.iter().map(|l| (l.name.as_str(), l.mtu)).collect::<Vec<_>>(),
        [("flannel.1", 1450), ("flannel-v6.1", 1430)]
    );
    assert_eq!(plan.pod_mtu, 1430);
    assert_eq!(plan.publish[0].data, format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, plan.links[0].mac.unwrap()));

    let many = peers(600, 2);
    let answers = sandbox.plan_peers(&vxlan, node.clone(), many.clone()).await.unwrap();
    let PeerAnswer::Verdict(Verdict::Plan(intents)) = &answers[258] else { panic!("{:?}", answers[258]) };
    assert_eq!(intents.len(), 6);
    let mac = "0e:00:00:00:01:02".parse().unwrap();
    let base = "10.101.2.0".parse().unwrap();
    assert!(intents.contains(&Intent::Neighbor { link: "flannel.1".into(), address: base, mac }));

    let backwards: Vec<_> = many.into_iter().rev().collect();
    let mut shuffled = sandbox.plan_peers(&vxlan, node, backwards).await.unwrap();
    shuffled.reverse();
    assert_eq!(shuffled, answers, "the same in another order and other batches");
    let counters = sandbox.counters();
    assert_eq!((counters.calls, counters.peers, counters.faults), (1 + 1 + 3 + 3, 1200, 0));
}
