//! What guests say reaches the log: with their name, without their control characters, and not endlessly.

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use support::{guest, load, node, peers, sandbox};
use twill_sandbox::Digest;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One test only: it takes the log of the whole process, since guests run on a thread of their own.
#[tokio::test]
async fn guests_are_heard_and_not_believed() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let sandbox = sandbox();
    let hostile = load(&sandbox, "hostile").await;
    let heard = || String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();

    assert!(sandbox.plan_node(&hostile, node(r#"{"Do":"trap-node"}"#, 1)).await.is_err());
    let panic = heard();
    assert!(panic.contains("hostile on purpose"), "{panic}");
    assert!(panic.contains("WARN twill::guest: "), "{panic}");
    assert!(panic.contains(r#"backend="hostile""#), "{panic}");
    assert!(panic.contains(&format!("digest=\"{}\"", Digest::of(&guest("hostile")).short())), "{panic}");

    let _ = sandbox.plan_peers(&hostile, node(r#"{"Do":"spam"}"#, 1), peers(1, 1)).await;
    let flood = heard();
    assert!(flood.contains(r"line 0\u{1b}[2J"), "{flood}");
    assert!(!flood.contains('\u{1b}'));
    let count = flood.lines().count();
    assert!((1..100).contains(&count), "{count} lines");
}
