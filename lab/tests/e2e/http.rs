//! What probes and scrapers do: one request, one answer, inside a node's namespace.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use twill_lab::{LabSpec, Node};

/// As in flannel's manifests.
const PORT: u16 = 8081;

/// Has the daemons answer probes.
pub(crate) fn answers_probes(spec: &mut LabSpec) {
    spec.daemon_args.push(format!("--healthz-port={PORT}"));
}

/// The status code and the body, or none where nobody listens.
pub(crate) fn get(node: &Node, path: &str) -> Option<(u16, String)> {
    let mut stream = node.ns.within(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT)))).unwrap().ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", node.name).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// Numbers by name and labels, as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// The metrics, read as strictly as the text format allows.
pub(crate) fn scrape(node: &Node) -> Samples {
    let (code, text) = get(node, "/metrics").unwrap();
    assert_eq!(code, 200, "{text}");
    parse(&text)
}

/// Each name has its HELP and TYPE before its samples, which stand together; each sample is there once.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'));
    let (mut samples, mut kinds) = (Samples::new(), BTreeMap::new());
    let mut current = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(!help.is_empty() && !kinds.contains_key(name), "{line}");
            current = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(current == Some(name) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kinds.insert(name, kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a number");
            let name = series.split('{').next().unwrap();
            let name = match kinds.get(current.unwrap()) {
                Some(&"histogram") => {
                    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).expect("a part")
                }
                _ => name,
            };
            assert_eq!(Some(name), current, "{line}");
            assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_'), "{line}");
            if let Some((_, labels)) = series.split_once('{') {
                assert!(labels.ends_with("\"}") && labels.contains("=\""), "{line}");
            }
            let before = samples.insert(series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")));
            assert!(before.is_none(), "twice: {line}");
        }
    }
    samples
}
