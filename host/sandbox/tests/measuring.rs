//! What the sandbox has for those who measure backends rather than run them.

mod support;

use std::time::Duration;

use support::{guest, is_plan, load, node, options, peers, sandbox};
use twill_sandbox::{Artifact, Metering, Options, Precompiled, Sandbox, Surroundings};

fn metered() -> Sandbox {
    Sandbox::new(Options { metering: Metering::Fuel, ..options() }).unwrap()
}

/// What planning for some peers costs beyond a first call.
async fn cost(sandbox: &Sandbox, count: u16) -> u64 {
    let loaded = load(sandbox, "vxlan").await;
    let before = sandbox.counters().fuel;
    let answers = sandbox.plan_peers(&loaded, node("", 1), peers(count, 1)).await.unwrap();
    assert!(answers.iter().all(is_plan));
    sandbox.counters().fuel - before
}

#[tokio::test]
async fn fuel_is_the_same_each_time() {
    let (one, other) = (metered(), metered());
    let fuel = cost(&one, 100).await;
    assert!(fuel > 10_000, "{fuel}");
    assert_eq!(cost(&one, 100).await, fuel);
    assert_eq!(cost(&other, 100).await, fuel);
    let twice = cost(&other, 200).await;
    assert!(twice > fuel + fuel / 4 && twice < 3 * fuel, "{fuel} for 100 peers, {twice} for 200");
}

#[tokio::test]
async fn the_daemon_counts_no_fuel_and_runs_no_code_that_does() {
    let sandbox = sandbox();
    assert_eq!(cost(&sandbox, 10).await, 0);
    let wasm = guest("vxlan");
    let compiler = options().compiler;
    let code = twill_sandbox::compile(&compiler, Metering::Fuel, &wasm).await.unwrap().leak();
    let digest = Artifact::Wasm { bytes: wasm.clone(), origin: "x".into() }.digest();
    // SAFETY: our own compiler made the code.
    let artifact = Artifact::Precompiled(unsafe { Precompiled::new(digest, wasm.len(), code) });
    let error = sandbox.load("vxlan", artifact).await.unwrap_err().to_string();
    assert!(error.contains("has code that does not run here"), "{error}");
}

#[tokio::test]
async fn memory_of_the_largest_call() {
    let sandbox = sandbox();
    let loaded = load(&sandbox, "vxlan").await;
    let start = sandbox.counters().memory;
    assert!((64 << 10..4 << 20).contains(&start), "{start}");
    let many = peers(256, 2);
    sandbox.plan_peers(&loaded, node("", 2), many).await.unwrap();
    let most = sandbox.counters().memory;
    assert!(most > start, "{start} at the start, {most} for 256 peers");
    sandbox.plan_peers(&loaded, node("", 2), peers(1, 1)).await.unwrap();
    assert_eq!(sandbox.counters().memory, most);
}

/// The order of a `HashMap` comes from the random numbers that a guest finds.
#[tokio::test]
async fn surroundings_show_who_looks_around() {
    let config = r#"{"Do": "unordered"}"#;
    let mut answers = Vec::new();
    for surroundings in [
        Surroundings::default(),
        Surroundings::default(),
        Surroundings { random: 0x5eed, clock: Duration::from_secs(1_800_000_000) },
    ] {
        let sandbox = Sandbox::new(Options { surroundings, ..options() }).unwrap();
        let loaded = load(&sandbox, "hostile").await;
        answers.push(sandbox.plan_peers(&loaded, node(config, 1), peers(3, 1)).await.unwrap());
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}
