//! `twill ipam list`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use crate::cli::arguments::OutputFormat;
use crate::cli::ask::plain;
use crate::nodes::rfc3339;
use crate::pool::{Census, Entry, State};

/// What programs get of an address.
#[derive(Debug, Serialize)]
struct Row<'a> {
    address: IpAddr,
    container: Option<&'a str>,
    /// Empty in address files of a host-local before 0.8.
    interface: Option<&'a str>,
    since: String,
    netns: Option<&'a Path>,
    state: State,
    why: &'a str,
}

impl<'a> From<&'a Entry> for Row<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            address: entry.address,
            container: entry.owner.as_ref().map(twill_ipam::Owner::container),
            interface: entry.owner.as_ref().map(twill_ipam::Owner::ifname),
            since: rfc3339(entry.since),
            netns: entry.netns.as_deref(),
            state: entry.state,
            why: &entry.why,
        }
    }
}

/// All addresses.
pub(super) fn text(census: &Census, output: OutputFormat) -> Result<String, String> {
    let rows: Vec<Row<'_>> = census.entries.iter().map(Row::from).collect();
    match output {
        OutputFormat::Json => serde_json::to_string_pretty(&rows)
            .map(|text| text + "\n")
            .map_err(|error| format!("writing the answer: {error}")),
        OutputFormat::Table | OutputFormat::Wide => Ok(table(&rows, output == OutputFormat::Wide)),
    }
}

fn table(rows: &[Row<'_>], wide: bool) -> String {
    let mut lines = vec![["ADDRESS", "STATE", "CONTAINER", "INTERFACE", "SINCE", "NETNS"].map(str::to_owned).to_vec()];
    if wide {
        lines[0].push("WHY".to_owned());
    }
    for row in rows {
        let name = |name: Option<&str>| name.filter(|name| !name.is_empty()).map_or_else(|| "-".to_owned(), plain);
        let mut line = vec![
            row.address.to_string(),
            row.state.as_str().to_owned(),
            name(row.container),
            name(row.interface),
            row.since.clone(),
            row.netns.map_or_else(|| "-".to_owned(), |path| plain(&path.display().to_string())),
        ];
        if wide {
            line.push(plain(row.why));
        }
        lines.push(line);
    }
    let widths: Vec<usize> =
        (0..lines[0].len()).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use twill_ipam::Owner;

    use super::*;

    fn census() -> Census {
        let entry = |address: &str, owner: Option<Owner>, state, why: &str| Entry {
            address: address.parse().unwrap(),
            owner,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(951_868_800),
            state,
            why: why.to_owned(),
            netns: None,
        };
        let mut entries = vec![
            entry("10.244.1.2", Some(Owner::new("c1", "eth0")), State::InUse, "a runtime knows its container"),
            entry("10.244.1.113", Some(Owner::new("c2\u{1b}[2J", "")), State::Unknown, "x"),
            entry("fd00::3", None, State::Empty, "its file is empty"),
        ];
        entries[0].netns = Some("/run/netns/a".into());
        Census { fills: Vec::new(), entries }
    }

    #[test]
    fn what_people_see() {
        assert_eq!(
            text(&census(), OutputFormat::Table).unwrap(),
            "ADDRESS       STATE    CONTAINER  INTERFACE  SINCE                 NETNS\n\
             10.244.1.2    in-use   c1         eth0       2000-03-01T00:00:00Z  /run/netns/a\n\
             10.244.1.113  unknown  c2\u{fffd}[2J     -          2000-03-01T00:00:00Z  -\n\
             fd00::3       empty    -          -          2000-03-01T00:00:00Z  -\n"
        );
        let wide = text(&census(), OutputFormat::Wide).unwrap();
        assert!(wide.lines().next().is_some_and(|line| line.ends_with("WHY")), "{wide}");
        assert!(wide.contains("/run/netns/a  a runtime knows its container\n"), "{wide}");
    }

    #[test]
    fn what_programs_see() {
        let json: serde_json::Value = serde_json::from_str(&text(&census(), OutputFormat::Json).unwrap()).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({ "address": "10.244.1.2", "container": "c1", "interface": "eth0",
                "since": "2000-03-01T00:00:00Z", "netns": "/run/netns/a", "state": "in-use",
                "why": "a runtime knows its container" })
        );
        assert_eq!((&json[2]["container"], &json[2]["state"]), (&serde_json::Value::Null, &"empty".into()));
    }
}
