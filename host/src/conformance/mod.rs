//! The conformance kit: what the contract promises about every backend, tried out on one.
//!
//! The contract says that a backend is a pure function, that it answers whatever it is asked, and that it asks for what it
//! may have. The daemon lives with backends that break this, but their peers get no plans, or other ones each time. Here
//! an author learns of it first: each check says what was tried, on what input, what was seen and what to do. Nothing is
//! left to chance: the same component, configuration and seed give the same report.
//!
//! | Check | Promise |
//! | --- | --- |
//! | `static`, `load`, `features` | it is a component for this contract, it loads, says what it is, and the host has what it requires |
//! | `node`, `verdicts` | there are plans for ordinary nodes, and a verdict for each ordinary peer |
//! | `purity/…` | answers depend on the arguments: not on clock or random numbers, not on who else is asked about |
//! | `totality/…` | nothing that a peer publishes and nothing in the configuration stops it |
//! | `policy` | the host allows what it plans |
//! | `budget/…` | a thousand peers cost a bounded amount of work, a full batch a bounded amount of memory |
//! | `golden` | it plans what it planned when its author last looked |

mod budget;
mod dice;
mod golden;
mod good;
mod hostile;
mod measure;
mod ordinary;
mod purity;
mod report;
mod smaller;
mod totality;

use std::path::PathBuf;

use twill_sandbox::{Metering, Options, Sandbox, SetupError, Surroundings};

pub use budget::MAX_FUEL;
pub use golden::GoldenError;
pub use measure::{Comparison, MeasureError, Measured};
pub use report::{Check, Finding, Outcome, Report};

use crate::workshop::bench::Bench;
use crate::workshop::component::Component;
use good::Good;

/// How a backend is checked.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What all chance is drawn from.
    pub seed: u64,
    /// How many hostile peers, and how many hostile nodes, are tried.
    pub cases: usize,
    /// Operations that a thousand peers may cost.
    pub max_fuel: u64,
    /// A folder of inputs and expected plans.
    pub golden: Option<PathBuf>,
    /// Write down what it plans as what is expected.
    pub bless: bool,
}

/// What a check has at hand.
struct Kit<'a> {
    bench: &'a Bench,
    /// The same backend where clock and random numbers are other ones.
    elsewhere: Bench,
    /// The same backend where its work is counted.
    metered: Bench,
    rules: &'a Rules,
    good: Vec<Good>,
}

/// Why a check could not be made at all: not the backend's fault.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
    /// A folder for the compiled code.
    #[error("making a folder for compiled code: {0}")]
    Cache(std::io::Error),
    /// The golden files.
    #[error(transparent)]
    Golden(#[from] GoldenError),
}

/// Checks a backend. `options` are those of the sandbox that a daemon would have; `config` is the type and the
/// configuration that it gets, and `features` is what the host can do.
///
/// # Errors
/// When a check cannot be made.
pub async fn check(
    component: &Component,
    (kind, config): (String, String),
    features: &[&'static str],
    options: &Options,
    rules: &Rules,
) -> Result<Report, CheckError> {
    let mut report = Report::new(component, rules.seed);
    // The same code is loaded more than once.
    let cache = tempfile::tempdir().map_err(CheckError::Cache)?;
    let options = &Options { cache: Some(cache.path().to_owned()), ..options.clone() };
    let sandbox = Sandbox::new(options.clone())?;
    let loaded = match component.load(&sandbox).await {
        Ok(loaded) => loaded,
        Err(why) => {
            let finding = Finding {
                tried: "loading it as the daemon does".into(),
                input: serde_json::Value::Null,
                seen: format!("it {}; it exports {}", why.reason, or_nothing(&why.exports)),
                advice: why.advice.clone(),
            };
            let check = if why.refusal.is_some() { "static" } else { "load" };
            report.loaded(check, finding);
            return Ok(report);
        }
    };
    let descriptor = loaded.descriptor().clone();
    report.name(&descriptor);
    report.pass("static", "imports and exports are those of a backend");
    report.pass("load", format!("compiles to {} of code", crate::workshop::component::bytes(loaded.code_bytes())));
    report.add("features", ordinary::features(component, &loaded, features));

    let bench = Bench { sandbox, loaded, kind, config, features: features.to_vec() };
    let surroundings = Surroundings {
        clock: std::time::Duration::from_secs(1_800_000_000),
        random: dice::Dice::new(rules.seed, "surroundings").next(),
    };
    let elsewhere = other(&bench, component, Options { surroundings, ..options.clone() }).await?;
    let mut limits = options.limits;
    limits.time *= 10;
    limits.time_per_peer *= 10;
    let metered = other(&bench, component, Options { metering: Metering::Fuel, limits, ..options.clone() }).await?;
    let (Some(elsewhere), Some(metered)) = (elsewhere, metered) else {
        report.loaded("load", Finding::of_second_load());
        return Ok(report);
    };
    let mut kit = Kit { bench: &bench, elsewhere, metered, rules, good: Vec::new() };
    match good::all(&bench).await {
        Ok(good) => kit.good = good,
        Err(finding) => {
            report.add("node", Err(*finding));
            report.skip_the_rest("there is no plan for an ordinary node");
            return Ok(report);
        }
    }
    report.pass("node", good::summary(&kit.good));
    let verdicts = ordinary::verdicts(&kit).await;
    let is_sound = verdicts.is_ok();
    report.add("verdicts", verdicts);
    if !is_sound {
        report.skip_the_rest("not every ordinary peer has a verdict");
        return Ok(report);
    }
    report.add("purity/surroundings", purity::surroundings(&kit).await);
    report.add("purity/twice", purity::twice(&kit).await);
    report.add("purity/order", purity::order(&kit).await);
    report.add("totality/peers", totality::peers(&kit).await);
    report.add("totality/node", totality::nodes(&kit).await);
    report.add("policy", ordinary::policy(&kit).await);
    report.add("budget/fuel", budget::fuel(&kit).await);
    report.add("budget/memory", budget::memory(&kit).await);
    if let Some(folder) = &rules.golden {
        report.add("golden", golden::check(&kit, folder).await?);
    }
    Ok(report)
}

/// The same backend in another sandbox.
async fn other(bench: &Bench, component: &Component, options: Options) -> Result<Option<Bench>, SetupError> {
    let sandbox = Sandbox::new(options)?;
    let loaded = component.load(&sandbox).await.ok();
    Ok(loaded.map(|loaded| Bench { sandbox, loaded, ..bench.clone() }))
}

fn or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
