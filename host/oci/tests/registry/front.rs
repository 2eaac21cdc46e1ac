//! A small server of the tests' own, for what a good registry never does. It answers by itself, or passes on what it was asked
//! to a registry behind it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What somebody asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

/// What is done about it.
pub(crate) enum Reply {
    /// Passed on to the port of a registry.
    Forward(u16),
    /// Answered: status, headers, content.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, and the connection ends.
    Bytes(Vec<u8>),
    /// The same as long as somebody reads.
    Endless(Vec<u8>, Vec<u8>),
}

/// A server that lives as long as the process.
pub(crate) struct Front {
    pub(crate) port: u16,
    seen: Arc<Mutex<VecDeque<Asked>>>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut first = String::new();
        stream.read_line(&mut first).ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut asked = Self { method, path, head, body: Vec::new() };
        let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        asked.body.resize(length, 0);
        stream.read_exact(&mut asked.body).ok()?;
        Some(asked)
    }

    fn forward(&self, port: u16, to: &mut TcpStream) -> std::io::Result<()> {
        let mut registry = TcpStream::connect(("127.0.0.1", port))?;
        let head: String = self
            .head
            .iter()
            .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        write!(registry, "{} {} HTTP/1.1\r\n{head}Connection: close\r\n\r\n", self.method, self.path)?;
        registry.write_all(&self.body)?;
        std::io::copy(&mut registry, to).map(drop)
    }
}

impl Front {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(VecDeque::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { port, seen }
    }

    /// Everything that was asked.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().iter().cloned().collect()
    }

    /// A name in the registry that it seems to be.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }
}

/// One question a connection.
fn serve(mut stream: TcpStream, log: &Mutex<VecDeque<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    // Somebody who tries TLS first.
    let mut first = [0];
    if stream.peek(&mut first).is_ok() && first == [0x16] {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(asked) = Asked::read(&mut reader) else { return };
    log.lock().unwrap().push_back(asked.clone());
    let done = match answer(&asked) {
        Reply::Forward(port) => asked.forward(port, &mut stream),
        Reply::Answer(status, headers, body) => {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} So\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body))
        }
        Reply::Bytes(bytes) => stream.write_all(&bytes),
        Reply::Endless(head, again) => stream.write_all(&head).and_then(|()| {
            loop {
                stream.write_all(&again)?;
            }
        }),
    };
    // Whoever stops reading early ends it.
    let _ = done;
    let _ = stream.shutdown(Shutdown::Both);
}
