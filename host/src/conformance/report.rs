//! What the checks found, for people and for programs.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use twill_model::Descriptor;

use crate::workshop::component::{Component, Host};

/// All checks, in their order.
const CHECKS: [&str; 13] = [
    "static",
    "load",
    "features",
    "node",
    "verdicts",
    "purity/surroundings",
    "purity/twice",
    "purity/order",
    "totality/peers",
    "totality/node",
    "policy",
    "budget/fuel",
    "budget/memory",
];
/// Bytes of a text in an input that people are shown; programs get all of it.
const SHOWN_TEXT: usize = 60;
/// Bytes of an input that people are shown.
const SHOWN_INPUT: usize = 1500;

/// The whole of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The component's file.
    pub component: String,
    /// Its digest, with the name of the hash before it.
    pub digest: String,
    /// Its name and version, as it says itself.
    pub backend: Option<String>,
    /// Who says so.
    pub host: Host,
    /// What all chance was drawn from: with the same seed the same is found.
    pub seed: u64,
    /// Whether no check failed.
    pub passed: bool,
    /// One by one.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// The promise was kept.
    Passed {
        /// On what, or how well.
        said: String,
    },
    /// It was not.
    Failed(Finding),
    /// It could not be tried.
    Skipped {
        /// Why.
        why: String,
    },
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub tried: String,
    /// On what, as JSON; null where there is no input.
    pub input: Value,
    /// What was seen.
    pub seen: String,
    /// What its author can do.
    pub advice: String,
}

/// What a check returns: how well it went, or what is wrong.
pub(super) type Checked = Result<String, Finding>;

impl Finding {
    /// The same bytes loaded once and not again.
    pub(super) fn of_second_load() -> Self {
        Self {
            tried: "loading it a second time".into(),
            input: Value::Null,
            seen: "it does not load again, although it is the same component".into(),
            advice: "`describe` must answer the same each time, whatever the clock says; test it alone".into(),
        }
    }
}

impl Report {
    pub(super) fn new(component: &Component, seed: u64) -> Self {
        Self {
            component: component.origin.display().to_string(),
            digest: format!("sha256:{}", component.digest),
            backend: None,
            host: Host::default(),
            seed,
            passed: true,
            checks: Vec::new(),
        }
    }

    pub(super) fn name(&mut self, descriptor: &Descriptor) {
        self.backend = Some(format!("{} {}", descriptor.name, descriptor.version));
    }

    pub(super) fn pass(&mut self, name: &'static str, said: impl Into<String>) {
        self.add(name, Ok(said.into()));
    }

    pub(super) fn add(&mut self, name: &'static str, checked: Checked) {
        let outcome = match checked {
            Ok(said) => Outcome::Passed { said },
            Err(finding) => {
                self.passed = false;
                Outcome::Failed(finding)
            }
        };
        self.checks.push(Check { name, outcome });
    }

    /// A check before anything can be asked has failed.
    pub(super) fn loaded(&mut self, name: &'static str, finding: Finding) {
        self.checks.retain(|check| check.name != name);
        if name == "load" && !self.checks.iter().any(|check| check.name == "static") {
            self.pass("static", "imports and exports are those of a backend");
        }
        self.add(name, Err(finding));
        self.skip_the_rest("it does not load");
    }

    /// The checks that have not been made cannot be made.
    pub(super) fn skip_the_rest(&mut self, why: &str) {
        for name in CHECKS {
            if !self.checks.iter().any(|check| check.name == name) {
                self.checks.push(Check { name, outcome: Outcome::Skipped { why: why.to_owned() } });
            }
        }
    }

    /// Names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_))).map(|check| check.name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "component  {}", self.component)?;
        writeln!(f, "digest     {}", self.digest)?;
        if let Some(backend) = &self.backend {
            writeln!(f, "backend    {backend}")?;
        }
        writeln!(f, "host       {}", self.host)?;
        writeln!(f, "seed       {}\n", self.seed)?;
        for Check { name, outcome } in &self.checks {
            match outcome {
                Outcome::Passed { said } => writeln!(f, "pass  {name:<20} {said}")?,
                Outcome::Skipped { why } => writeln!(f, "skip  {name:<20} {why}")?,
                Outcome::Failed(Finding { tried, input, seen, advice }) => {
                    writeln!(f, "FAIL  {name}")?;
                    writeln!(f, "        tried  {tried}")?;
                    if !input.is_null() {
                        writeln!(f, "        input  {}", shortened(input))?;
                    }
                    writeln!(f, "        seen   {seen}")?;
                    writeln!(f, "        to do  {advice}")?;
                }
            }
        }
        let failed = self.failed().count();
        let passed = self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Passed { .. })).count();
        let skipped = self.checks.len() - failed - passed;
        let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        writeln!(f, "\n{passed} passed, {failed} failed{skipped}")
    }
}

/// An input for a terminal: long texts are cut.
fn shortened(input: &Value) -> String {
    fn cut(value: &Value) -> Value {
        match value {
            Value::String(text) if text.len() > SHOWN_TEXT => {
                let shown: String = text.chars().take(SHOWN_TEXT / 2).collect();
                format!("{shown}… ({} bytes)", text.len()).into()
            }
            Value::Array(list) => list.iter().map(cut).collect(),
            Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), cut(value))).collect(),
            other => other.clone(),
        }
    }
    let text = cut(input).to_string();
    match text.char_indices().nth(SHOWN_INPUT) {
        Some((end, _)) => format!("{}… (all of it with --output json)", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_inputs_are_cut_for_people_only() {
        let input = serde_json::json!({ "a": "x".repeat(10_000), "b": ["short"] });
        assert_eq!(shortened(&input), format!(r#"{{"a":"{}… (10000 bytes)","b":["short"]}}"#, "x".repeat(30)));
        assert!(shortened(&serde_json::json!(vec!["text"; 1000])).ends_with("… (all of it with --output json)"));
    }
}
