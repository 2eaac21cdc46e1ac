//! Inputs with the plans that are expected for them, in files: so that a change of a backend shows what it changes.
//!
//! A folder holds pairs: `NAME.input.json` with a node and its peers, `NAME.plan.json` with what is planned for them. An
//! author may write inputs by hand; blessing writes the plans, and ordinary inputs where there are none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use twill_model::{Node, Peer};
use twill_sandbox::PeerAnswer;

use super::Kit;
use super::report::{Checked, Finding};
use crate::workshop::bench::Bench;

/// How the files' names end.
const INPUT: &str = ".input.json";
const PLAN: &str = ".plan.json";
/// Peers in an input that is made.
const PEERS: usize = 2;

/// What a backend is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    node: Node,
    peers: Vec<Peer>,
}

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("golden file {file}: {why}", file = file.display())]
pub struct GoldenError {
    file: PathBuf,
    why: String,
}

fn wrong(file: &Path) -> impl Fn(String) -> GoldenError {
    move |why| GoldenError { file: file.to_owned(), why }
}

/// Compares all plans with what is expected, or writes them down.
pub(super) async fn check(kit: &Kit<'_>, folder: &Path) -> Result<Checked, GoldenError> {
    let mut inputs = inputs(folder)?;
    if kit.rules.bless && inputs.is_empty() {
        make(kit, folder)?;
        inputs = self::inputs(folder)?;
    }
    if inputs.is_empty() {
        return Ok(Err(Finding {
            tried: format!("looking for *{INPUT} in {}", folder.display()),
            input: Value::Null,
            seen: "there is none".into(),
            advice: "run it once with --bless: it writes inputs and what is planned for them; then read the plans"
                .into(),
        }));
    }
    let count = inputs.len();
    for (name, input) in inputs {
        let found = plans(kit.bench, &input).await;
        let file = folder.join(format!("{name}{PLAN}"));
        if kit.rules.bless {
            write(&file, &found)?;
            continue;
        }
        let expected: Value = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(&file)(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(wrong(&file)(error.to_string())),
        };
        if expected != found {
            let (place, expected, found) = difference(&expected, &found, String::new());
            return Ok(Err(Finding {
                tried: format!("what is planned for {name}{INPUT}, beside {}", file.display()),
                input: json!({ "file": folder.join(format!("{name}{INPUT}")) }),
                seen: format!("at {place} it is {found} and was {expected}"),
                advice:
                    "if that is what you want, write it down with --bless and look at the difference in version control"
                        .into(),
            }));
        }
    }
    let verb = if kit.rules.bless { "written down" } else { "as expected" };
    Ok(Ok(format!("{count} plans {verb} in {}", folder.display())))
}

fn inputs(folder: &Path) -> Result<BTreeMap<String, Input>, GoldenError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(wrong(folder)(error.to_string())),
    };
    let mut inputs = BTreeMap::new();
    for entry in entries {
        let file = entry.map_err(|error| wrong(folder)(error.to_string()))?.path();
        let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(INPUT));
        let Some(name) = name.map(str::to_owned) else { continue };
        let text = fs::read_to_string(&file).map_err(|error| wrong(&file)(error.to_string()))?;
        inputs.insert(name, serde_json::from_str(&text).map_err(|error| wrong(&file)(error.to_string()))?);
    }
    Ok(inputs)
}

/// Writes ordinary inputs.
fn make(kit: &Kit<'_>, folder: &Path) -> Result<(), GoldenError> {
    fs::create_dir_all(folder).map_err(|error| wrong(folder)(error.to_string()))?;
    for good in &kit.good {
        let families: Vec<String> = good.layout.families.iter().map(|f| f.to_string().to_lowercase()).collect();
        let routers = if good.layout.segments > 1 { "-routers" } else { "" };
        let peers = good.peers.iter().take(PEERS).cloned().collect();
        let input = Input { node: Node::clone(&good.node), peers };
        write(&folder.join(format!("{}{routers}{INPUT}", families.join("-"))), &input)?;
    }
    Ok(())
}

fn write(file: &Path, content: &impl Serialize) -> Result<(), GoldenError> {
    let text = serde_json::to_string_pretty(content).map_err(|error| wrong(file)(error.to_string()))?;
    fs::write(file, text + "\n").map_err(|error| wrong(file)(error.to_string()))
}

/// What a backend answers, as JSON.
async fn plans(bench: &Bench, input: &Input) -> Value {
    let node = Arc::new(input.node.clone());
    let plan = match bench.sandbox.plan_node(&bench.loaded, Arc::clone(&node)).await {
        Ok(plan) => json!({ "plan": plan }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let peers = match bench.sandbox.plan_peers(&bench.loaded, node, input.peers.clone()).await {
        Ok(answers) => {
            let answer = |(peer, answer): (&Peer, &PeerAnswer)| (peer.name.clone(), shown(answer));
            Value::Object(input.peers.iter().zip(&answers).map(answer).collect())
        }
        Err(error) => json!({ "error": error.to_string() }),
    };
    json!({ "node": plan, "peers": peers })
}

fn shown(answer: &PeerAnswer) -> Value {
    match answer {
        PeerAnswer::Verdict(verdict) => json!(verdict),
        PeerAnswer::Mixed(parts) => {
            parts.iter().map(|(family, verdict)| json!({ "family": family, "verdict": verdict })).collect()
        }
        PeerAnswer::Violation(why) => json!({ "violation": why }),
        PeerAnswer::Faulted(fault) => json!({ "fault": fault.to_string() }),
    }
}

/// The first place where two values differ, and what stands there in each.
fn difference(one: &Value, two: &Value, place: String) -> (String, String, String) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let (left, right) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                if left != right {
                    return difference(left, right, format!("{place}/{key}"));
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            if let Some(at) = (0..a.len()).find(|&at| a[at] != b[at]) {
                return difference(&a[at], &b[at], format!("{place}/{at}"));
            }
        }
        _ => {}
    }
    (place, one.to_string(), two.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_a_place() {
        let (one, two) = (json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]}));
        assert_eq!(difference(&one, &two, String::new()), ("/a/1/b".into(), "2".into(), "3".into()));
        assert_eq!(difference(&json!({}), &json!({"x": 1}), String::new()), ("/x".into(), "null".into(), "1".into()));
        assert_eq!(difference(&Value::Null, &json!(1), String::new()), (String::new(), "null".into(), "1".into()));
    }
}
