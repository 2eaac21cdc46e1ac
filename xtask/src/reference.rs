//! Makes `docs/backends/reference.md` out of `wit/backend.wit`, whose comments are the text.
//!
//! It reads the text line by line: enough for one file that people of this tree write, and for its one layout.

use std::fmt::Write as _;
use std::fs;

use crate::run::{Outcome, root};

const WIT: &str = "wit/backend.wit";
const PAGE: &str = "docs/backends/reference.md";

/// Writes the page.
pub(crate) fn run() -> Outcome {
    let page = made()?;
    fs::write(root().join(PAGE), page).map_err(|error| format!("cannot write {PAGE}: {error}"))
}

/// Says what to do if the page is not the one that the WIT makes.
pub(crate) fn complaint() -> Outcome<Option<String>> {
    let there = fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    Ok((there != made()?).then(|| format!("{PAGE} is not what {WIT} makes: `cargo xtask reference` writes it")))
}

fn made() -> Outcome<String> {
    let text = fs::read_to_string(root().join(WIT)).map_err(|error| format!("cannot read {WIT}: {error}"))?;
    page(&text)
}

/// What is being read.
enum Inside {
    File,
    /// Of an interface or a world.
    Block,
    /// Of a record, a variant or an enumeration, whose table begins with the first row.
    Item {
        head: &'static str,
        rows: usize,
    },
}

fn page(wit: &str) -> Outcome<String> {
    let mut page = String::from("<!-- Made from wit/backend.wit by `cargo xtask reference`. Change that file. -->\n\n");
    page.push_str("# Reference: the contract, word by word\n\n");
    page.push_str("The text itself is [wit/backend.wit](../../wit/backend.wit). What it promises over time: ");
    page.push_str("[versions.md](versions.md).\n");
    let mut inside = Inside::File;
    let mut doc: Vec<&str> = Vec::new();
    for (number, line) in wit.lines().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.strip_prefix(' ').unwrap_or(text));
            continue;
        }
        if let Some(group) = line.strip_prefix("// ---") {
            let _ = write!(page, "\n### {}\n", capitalized(group.trim_start_matches('-').trim()));
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let unreadable = || format!("{WIT}:{}: `cargo xtask reference` cannot read {line:?}", number + 1);
        inside = match (inside, line) {
            (Inside::Item { .. }, "}") => Inside::Block,
            (Inside::Block, "}") => Inside::File,
            (Inside::Item { head, rows }, member) => {
                if rows == 0 {
                    page.push_str(head);
                }
                let member = member.strip_suffix(',').ok_or_else(unreadable)?;
                let _ = writeln!(page, "| {} |", row(member, &doc.join(" ")));
                Inside::Item { head, rows: rows + 1 }
            }
            (Inside::File, line) => {
                if let Some(package) = line.strip_prefix("package ").and_then(|rest| rest.strip_suffix(';')) {
                    let _ = write!(page, "\n## `{package}`\n\n{}\n", doc.join("\n"));
                    Inside::File
                } else {
                    let name = line.strip_suffix(" {").ok_or_else(unreadable)?;
                    let _ = write!(page, "\n## {}\n{}", named(name), paragraph(&doc));
                    Inside::Block
                }
            }
            (Inside::Block, line) => block_line(&mut page, line, &doc).ok_or_else(unreadable)?,
        };
        doc.clear();
    }
    match inside {
        Inside::File => Ok(page),
        _ => Err(format!("{WIT} ends inside of a block")),
    }
}

/// A line of an interface or a world.
fn block_line(page: &mut String, line: &str, doc: &[&str]) -> Option<Inside> {
    if let Some(item) = line.strip_suffix(" {") {
        let head = match item.split(' ').next()? {
            "record" => "\n| Field | Type | |\n| --- | --- | --- |\n",
            "variant" => "\n| Case | With | |\n| --- | --- | --- |\n",
            "enum" => "\n| Case | | |\n| --- | --- | --- |\n",
            _ => return None,
        };
        let _ = write!(page, "\n#### {}\n{}", named(item), paragraph(doc));
        return Some(Inside::Item { head, rows: 0 });
    }
    let line = line.strip_suffix(';')?;
    if let Some((name, signature)) = line.split_once(": func") {
        let _ = write!(page, "\n#### func `{name}`\n\n```wit\n{name}: func{signature}\n```\n{}", paragraph(doc));
    } else if let Some((name, meaning)) = line.strip_prefix("type ").and_then(|rest| rest.split_once(" = ")) {
        let _ = write!(page, "\n#### type `{name}`\n\n`{meaning}`\n{}", paragraph(doc));
    } else if line.starts_with("import ") || line.starts_with("export ") {
        let _ = write!(page, "\n`{line}`\n{}", paragraph(doc));
    } else if !line.starts_with("use ") {
        return None;
    }
    Some(Inside::Block)
}

/// `record uplink` as record `uplink`.
fn named(item: &str) -> String {
    item.split_once(' ').map_or_else(|| format!("`{item}`"), |(kind, name)| format!("{kind} `{name}`"))
}

/// Three cells: the name, what it has, the text.
fn row(member: &str, doc: &str) -> String {
    let (name, with) = match member.split_once(": ") {
        Some(field) => field,
        None => member.strip_suffix(')').and_then(|case| case.split_once('(')).unwrap_or((member, "")),
    };
    let with = if with.is_empty() { String::new() } else { format!("`{with}`") };
    format!("`{name}` | {with} | {}", doc.replace('|', "\\|"))
}

fn paragraph(doc: &[&str]) -> String {
    if doc.is_empty() { String::new() } else { format!("\n{}\n", doc.join("\n")) }
}

fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_contract_is_on_the_page() {
        let wit = "/// About it.\npackage a:b@1.0.0;\n\n/// Values.\ninterface types {\n    /// Four bytes.\n    type ip = \
                   tuple<u8>;\n    // ---- facts\n\n    /// A way | through.\n    record uplink {\n        name: string,\n        \
                   /// Bytes.\n        mtu: u32,\n    }\n    variant ip-address { \n        v4(ip),\n        none,\n    }\n}\n\n\
                   interface planner {\n    use types.{ip};\n    /// Asks.\n    plan: func(a: ip) -> bool;\n}\n\nworld w {\n    \
                   import log;\n}\n";
        let page = page(&wit.replace("{ \n", "{\n")).unwrap();
        for expected in [
            "\n## `a:b@1.0.0`\n\nAbout it.\n",
            "\n## interface `types`\n\nValues.\n",
            "\n#### type `ip`\n\n`tuple<u8>`\n\nFour bytes.\n",
            "\n### Facts\n",
            "\n#### record `uplink`\n\nA way | through.\n\n| Field | Type | |\n| --- | --- | --- |\n| `name` | `string` |  |\n\
             | `mtu` | `u32` | Bytes. |\n",
            "\n| `v4` | `ip` |  |\n| `none` |  |  |\n",
            "\n#### func `plan`\n\n```wit\nplan: func(a: ip) -> bool\n```\n\nAsks.\n",
            "\n## world `w`\n\n`import log`\n",
        ] {
            assert!(page.contains(expected), "{expected}\n---\n{page}");
        }
    }

    #[test]
    fn the_page_is_up_to_date() {
        assert_eq!(complaint(), Ok(None));
    }

    #[test]
    fn what_it_cannot_read_it_says() {
        for (wit, line) in [("world w {\n  include x;\n}\n", 2), ("interface i {\n  resource r {\n", 2), ("x\n", 1)] {
            let error = page(wit).unwrap_err();
            assert!(error.starts_with(&format!("wit/backend.wit:{line}: ")), "{error}");
        }
        assert_eq!(page("world w {\n").unwrap_err(), "wit/backend.wit ends inside of a block");
    }
}
