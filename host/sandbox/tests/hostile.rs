//! What a hostile backend can do: nothing. Each attempt ends in one clear sentence, and the sandbox works on.

mod support;

use std::time::Duration;

use support::{is_plan, load, node, peer, peers, sandbox, sentence};
use tokio::sync::OnceCell;
use twill_model::{Family, Intent, LinkKind, Verdict};
use twill_sandbox::{CallError, Fault, Loaded, PeerAnswer, Sandbox};

/// One sandbox for all tests, as in a daemon.
async fn hostile() -> (Sandbox, Loaded) {
    static SHARED: OnceCell<(Sandbox, Loaded)> = OnceCell::const_new();
    let init = || async {
        let sandbox = sandbox();
        let loaded = load(&sandbox, "hostile").await;
        (sandbox, loaded)
    };
    SHARED.get_or_init(init).await.clone()
}

async fn in_plan_node(what: &str) -> String {
    let (sandbox, hostile) = hostile().await;
    sentence(sandbox.plan_node(&hostile, node(&format!(r#"{{"Do":"{what}"}}"#), 1)).await)
}

async fn in_plan_peers(what: &str) -> String {
    let (sandbox, hostile) = hostile().await;
    sentence(sandbox.plan_peers(&hostile, node(&format!(r#"{{"Do":"{what}"}}"#), 1), peers(3, 1)).await)
}

/// Does harm to one peer of 300, and gives back the answer about it. All others must have their plans.
async fn to_a_victim(what: &str) -> PeerAnswer {
    let (sandbox, hostile) = hostile().await;
    let config = format!(r#"{{"Do":"{what}","Victim":"peer-77"}}"#);
    let mut answers = sandbox.plan_peers(&hostile, node(&config, 1), peers(300, 1)).await.unwrap();
    assert_eq!(answers.len(), 300);
    let victim = answers.remove(77);
    assert!(answers.iter().all(is_plan), "{what}: the others");
    victim
}

fn faulted(answer: PeerAnswer) -> String {
    match answer {
        PeerAnswer::Faulted(fault) => format!("the backend {fault}"),
        other => panic!("{other:?}"),
    }
}

fn violation(answer: PeerAnswer) -> String {
    match answer {
        PeerAnswer::Violation(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_orders_it_behaves() {
    let (sandbox, hostile) = hostile().await;
    assert_eq!(sandbox.plan_node(&hostile, node("", 1)).await.unwrap().pod_mtu, 1500);
    assert!(sandbox.plan_peers(&hostile, node("", 1), peers(3, 1)).await.unwrap().iter().all(is_plan));
    assert_eq!(sandbox.plan_peers(&hostile, node("", 1), Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn traps() {
    for text in [in_plan_node("trap-node").await, in_plan_peers("trap").await, faulted(to_a_victim("trap").await)] {
        assert!(text.starts_with("the backend stopped itself (wasm trap: "), "{text}");
        assert!(text.contains("hostile on purpose"), "the panic's message: {text}");
    }
}

#[tokio::test]
async fn endless_loops() {
    assert_eq!(in_plan_node("loop-node").await, "the backend did not answer within 250 ms");
    assert_eq!(in_plan_peers("loop").await, "the backend did not answer within 251 ms");
    assert_eq!(faulted(to_a_victim("loop").await), "the backend did not answer within 251 ms");
}

#[tokio::test]
async fn memory() {
    assert_eq!(in_plan_peers("memory").await, "the backend wanted more than 32 MiB of memory");
    assert_eq!(faulted(to_a_victim("memory").await), "the backend wanted more than 32 MiB of memory");
}

#[tokio::test]
async fn recursion() {
    let text = in_plan_peers("recursion").await;
    // The guest's own stack, inside its memory, or the processor's: whichever ends first.
    let ends = ["the backend used more than 512 KiB of stack", "the backend stopped itself (wasm trap: out of bounds"];
    assert!(ends.iter().any(|end| text.starts_with(end)), "{text}");
}

#[tokio::test]
async fn exit() {
    for text in [in_plan_node("exit-node").await, in_plan_peers("exit").await, faulted(to_a_victim("exit").await)] {
        assert!(text.starts_with("the backend ended itself with exit code "), "{text}");
    }
}

#[tokio::test]
async fn too_much_data() {
    assert_eq!(in_plan_peers("million-intents").await, "the backend wanted more than 32 MiB of memory");
    assert_eq!(in_plan_peers("much-data").await, "the backend wanted to hand over more than 4 MiB of data");
    assert_eq!(violation(to_a_victim("many-intents").await), "33 intents, and 32 are the most");
    assert_eq!(
        in_plan_node("publish-much").await,
        "the backend's answer is not allowed: it publishes 100000 bytes, and 4096 are the most"
    );
    assert_eq!(in_plan_node("many-links").await, "the backend's answer is not allowed: 9 links, and 8 are the most");
}

#[tokio::test]
async fn wrong_lengths() {
    assert_eq!(in_plan_peers("short").await, "the backend gave 2 verdicts for 3 peers");
    assert_eq!(in_plan_peers("long").await, "the backend gave 4 verdicts for 3 peers");
}

#[tokio::test]
async fn bad_networks() {
    assert_eq!(
        violation(to_a_victim("bad-prefix").await),
        "destination of a route: 0.0.0.0/33 has a prefix longer than the 32 bits of IPv4"
    );
    assert_eq!(
        violation(to_a_victim("host-bits").await),
        "destination of a route: 192.168.0.77/8 has host bits set, the network is 192.0.0.0/8"
    );
}

#[tokio::test]
async fn what_this_host_cannot_make() {
    let PeerAnswer::Verdict(Verdict::Plan(plan)) = to_a_victim("unsupported").await else { panic!("no plan") };
    assert_eq!(plan.last(), Some(&Intent::Unsupported("encap.mpls".into())));
    let (sandbox, hostile) = hostile().await;
    let plan = sandbox.plan_node(&hostile, node(r#"{"Do":"unsupported-link"}"#, 1)).await.unwrap();
    assert_eq!(plan.links[0].kind, LinkKind::Unsupported("link.dummy".into()));
}

#[tokio::test]
async fn wrong_configuration_is_the_operators() {
    let (sandbox, hostile) = hostile().await;
    let text = sentence(sandbox.plan_peers(&hostile, node(r#"{"Do":7}"#, 1), peers(3, 1)).await);
    assert_eq!(text, "the backend says: its configuration is wrong: Do is 7, but should be a string");
}

/// These reach the policy, whose tests say what it makes of them.
#[tokio::test]
async fn harmful_plans_arrive_as_they_are() {
    for what in ["default-route", "own-subnet", "foreign-forwarding", "foreign-neighbor"] {
        let PeerAnswer::Verdict(Verdict::Plan(plan)) = to_a_victim(what).await else { panic!("{what}: no plan") };
        assert_eq!(plan.len(), 2, "{what}");
    }
    let (sandbox, hostile) = hostile().await;
    let plan = sandbox.plan_node(&hostile, node(r#"{"Do":"foreign-link"}"#, 1)).await.unwrap();
    assert_eq!(plan.links[0].name, "eth0");
    let plan = sandbox.plan_node(&hostile, node(r#"{"Do":"publish-garbage"}"#, 1)).await.unwrap();
    assert_eq!(plan.publish[0].data, "\u{1b}[2J}{");
}

#[tokio::test]
async fn a_flood_of_lines_is_only_slow() {
    let answer = to_a_victim("spam").await;
    assert!(is_plan(&answer) || faulted(answer).contains("did not answer"));
}

#[tokio::test]
async fn answers_do_not_depend_on_the_call() {
    let (sandbox, hostile) = hostile().await;
    let ask = |peers| sandbox.plan_peers(&hostile, node(r#"{"Do":"unordered"}"#, 1), peers);
    let first = ask(peers(20, 1)).await.unwrap();
    assert!(first.iter().all(is_plan));
    assert_eq!(ask(peers(20, 1)).await.unwrap(), first);
}

#[tokio::test]
async fn a_single_peer_may_be_the_cause() {
    let (sandbox, hostile) = hostile().await;
    let answers = sandbox.plan_peers(&hostile, node(r#"{"Do":"trap"}"#, 1), vec![peer(1, 1)]).await.unwrap();
    assert!(matches!(&answers[..], [PeerAnswer::Faulted(Fault::Trapped(_))]), "{answers:?}");
}

#[tokio::test]
async fn families_do_not_wait_for_each_other() {
    let (sandbox, hostile) = hostile().await;
    let mut asked = peer(1, 2);
    asked.families[1].on_link = false;
    let answers = sandbox.plan_peers(&hostile, node("", 2), vec![asked, peer(2, 2)]).await.unwrap();
    let PeerAnswer::Mixed(families) = &answers[0] else { panic!("{answers:?}") };
    assert!(matches!(&families[0], (Family::V4, Verdict::Plan(plan)) if plan.len() == 1));
    assert_eq!(families[1], (Family::V6, Verdict::Unreachable("2001:db8::1 is behind a gateway".into())));
    assert!(is_plan(&answers[1]));
}

/// The daemon's own thread goes on while a guest is stuck.
#[tokio::test]
async fn nobody_waits_for_a_stuck_guest() {
    let (sandbox, hostile) = hostile().await;
    let stuck = tokio::spawn({
        let (sandbox, hostile) = (sandbox.clone(), hostile.clone());
        async move { sandbox.plan_node(&hostile, node(r#"{"Do":"loop-node"}"#, 1)).await }
    });
    let mut ticks = 0;
    while !stuck.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ticks += 1;
    }
    assert!(ticks > 1);
    assert_eq!(stuck.await.unwrap(), Err(CallError::Fault(Fault::TimedOut(250))));
    assert!(sandbox.counters().faults > 0);
}

/// Whoever waited has given up: the guest is stopped all the same.
#[tokio::test]
async fn a_forgotten_call_ends_too() {
    let (sandbox, hostile) = hostile().await;
    let forgotten = sandbox.plan_node(&hostile, node(r#"{"Do":"loop-node"}"#, 1));
    assert!(tokio::time::timeout(Duration::from_millis(20), forgotten).await.is_err());
    assert!(sandbox.plan_node(&hostile, node("", 1)).await.is_ok());
}
