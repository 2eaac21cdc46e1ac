//! `resolvConf`: a resolver's configuration file, as `dns` of a result.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::config::Object;

/// Reads the file; what cannot be read is an error, what is in it is not.
pub(super) fn read(file: &Path) -> Result<Object, Error> {
    match fs::read(file) {
        Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes))),
        Err(error) => Err(Error::HostLocal { problem: format!("open {} for `resolvConf`: {error}", file.display()) }),
    }
}

/// Name servers, search domains and options add up, the last domain counts, all else is for others.
fn parse(text: &str) -> Object {
    let mut dns = Object::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let (Some(key), Some(first)) = (words.next(), words.next()) else { continue };
        let all = || std::iter::once(first).chain(words.clone()).map(Value::from);
        match key {
            "nameserver" => extend(&mut dns, "nameservers", [first.into()]),
            "search" => extend(&mut dns, "search", all()),
            "options" => extend(&mut dns, "options", all()),
            "domain" => drop(dns.insert("domain".to_owned(), first.into())),
            _ => {}
        }
    }
    dns
}

fn extend(dns: &mut Object, key: &str, values: impl IntoIterator<Item = Value>) {
    if let Value::Array(list) = dns.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
        list.extend(values);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // What host-local 1.1.1 makes of the same text.
    #[test]
    fn a_file_with_everything() {
        let text = "nameserver 1.1.1.1\nnameserver   2001:db8::1  \n# c\n; d\ndomain example.com\nsearch a.b c.d\nsearch e.f\n\
            options ndots:5 edns0\noptions x\nnameserver 9.9.9.9 # x\nnonsense y\n nameserver 7.7.7.7\ndomain\tother.org\n\
            nameserver\n";
        let expected = json!({
            "nameservers": ["1.1.1.1", "2001:db8::1", "9.9.9.9", "7.7.7.7"],
            "domain": "other.org",
            "search": ["a.b", "c.d", "e.f"],
            "options": ["ndots:5", "edns0", "x"],
        });
        assert_eq!(Value::Object(parse(text)), expected);
        assert!(parse("").is_empty());
    }
}
