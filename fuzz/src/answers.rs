//! Answers of a component, in every value that the contract has types for: made inside a sandbox by a guest that spells them out
//! of the input, and lifted, converted and checked as in the daemon.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tokio::runtime::{Builder, Runtime};
use twill::intent::policy::{self, Holder};
use twill_model::Verdict;
use twill_sandbox::{Artifact, Digest, Loaded, Options, PeerAnswer, Precompiled, Sandbox};

use crate::policy::{node, peer};

/// The folder with the guest in it; without it, nothing can be asked.
pub const GUESTS: &str = "TWILL_GUESTS";

struct Stage {
    runtime: Runtime,
    sandbox: Sandbox,
    guest: Loaded,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| Stage::set_up().unwrap_or_else(|why| panic!("{why}")));

impl Stage {
    fn set_up() -> Result<Self, String> {
        let folder = env::var_os(GUESTS).ok_or_else(|| format!("{GUESTS} is not set"))?;
        let file = Path::new(&folder).join("arbitrary.wasm");
        let wasm = fs::read(&file).map_err(|error| format!("reading {}: {error}", file.display()))?;
        let code = twill_engine::compiler().and_then(|compiler| compiler.precompile_component(&wasm));
        let code: &'static [u8] = code.map_err(|error| format!("{error:#}"))?.leak();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let sandbox = Sandbox::new(Options::default()).map_err(|error| error.to_string())?;
        // SAFETY: this process has just made the code itself.
        let artifact = Artifact::Precompiled(unsafe { Precompiled::new(Digest::of(&wasm), wasm.len(), code) });
        let guest = runtime.block_on(sandbox.load("arbitrary", artifact)).map_err(|error| error.to_string())?;
        Ok(Self { runtime, sandbox, guest })
    }
}

/// The node's plan, and plans for two peers.
pub(crate) fn run(bytes: &[u8]) {
    let Stage { runtime, sandbox, guest } = &*STAGE;
    let config = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let node = Arc::new(twill_model::Node { config, ..node() });
    match runtime.block_on(sandbox.plan_node(guest, Arc::clone(&node))) {
        Ok(plan) => drop(policy::check_node(&plan, &node, |_| Holder::Free)),
        Err(error) => bearable(&error.to_string()),
    }
    let peers = vec![peer(2, true), peer(3, false)];
    match runtime.block_on(sandbox.plan_peers(guest, Arc::clone(&node), peers.clone())) {
        Ok(answers) => {
            assert_eq!(answers.len(), peers.len(), "one answer for each peer");
            for (answer, peer) in answers.into_iter().zip(&peers) {
                judge(answer, peer, &node);
            }
        }
        Err(error) => bearable(&error.to_string()),
    }
}

fn judge(answer: PeerAnswer, peer: &twill_model::Peer, node: &twill_model::Node) {
    match answer {
        PeerAnswer::Verdict(verdict) => judge_verdict(verdict, peer, node),
        PeerAnswer::Mixed(families) => {
            for (_, verdict) in families {
                judge_verdict(verdict, peer, node);
            }
        }
        PeerAnswer::Violation(why) => bearable(&why),
        PeerAnswer::Faulted(fault) => bearable(&fault.to_string()),
    }
}

fn judge_verdict(verdict: Verdict, peer: &twill_model::Peer, node: &twill_model::Node) {
    match verdict {
        Verdict::Plan(intents) => {
            if let Err(violation) = policy::check_peer(&intents, peer, node, &[]) {
                bearable(&violation.to_string());
            }
        }
        Verdict::Unreachable(why) | Verdict::Incomplete(why) | Verdict::Invalid(why) => bearable(&why),
    }
}

/// What a guest says ends in logs and on terminals.
fn bearable(text: &str) {
    assert!(!text.chars().any(char::is_control), "control characters reach the terminal: {text:?}");
    assert!(text.len() < 16 * 1024, "{} bytes of text", text.len());
}
