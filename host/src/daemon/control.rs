//! What operators may ask of the running daemon: one line of JSON over a socket of its own, one line back.
//!
//! Only the daemon's user can open the socket. Even so, nobody who does can hold the daemon up: so many at a time, so much
//! text, so much time to say it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::socket::{SocketFile, accept};

/// Name of the socket inside the run directory.
pub const SOCKET: &str = "control.sock";
/// Orders that may wait for the daemon at once; more wait in line.
pub const WAITING_ORDERS: usize = 4;
/// Bytes of a request: the longest net-conf.json that anybody writes, many times over.
const LONGEST_REQUEST: u64 = 1 << 20;
/// So long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// What would change, without changing it.
    DryRun {
        /// The text of a net-conf.json to try in place of the configured one.
        net_conf: Option<String>,
    },
    /// Back to the backends before the present ones.
    Rollback,
}

/// A request, and who waits for the answer.
#[derive(Debug)]
pub struct Order {
    /// What is asked for.
    pub request: Request,
    /// Who waits.
    pub answer: oneshot::Sender<Answer>,
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What would change.
    Plan(SwapPlan),
    /// It was done, or is under way.
    Done {
        /// What, for people.
        message: String,
    },
    /// It was not done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What a change of the backends would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapPlan {
    /// `go`, `nothing to do`, or why it would be refused.
    pub verdict: String,
    /// False if it would be refused.
    pub goes: bool,
    /// What would happen to links, a line each: `+ …` is made, `- …` is removed in the end, `~ …` is changed in place.
    pub links: Vec<String>,
    /// What would be published, and what no longer: `+ …` and `- …`.
    pub publishes: Vec<String>,
    /// What would happen to the entries of each peer.
    pub peers: Vec<PeerDiff>,
    /// The MTU of pods before and after, if it would be another one.
    pub mtu: Option<(u32, u32)>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
}

/// What would happen to the entries of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerDiff {
    /// The peer's name.
    pub name: String,
    /// The type of the backend that carries its packets now.
    pub from: Option<String>,
    /// The type of the backend that would.
    pub to: Option<String>,
    /// Entries that would be written.
    pub add: Vec<String>,
    /// Entries that would be removed.
    pub remove: Vec<String>,
    /// How many would stay as they are.
    pub keep: usize,
    /// Why there is no plan for it.
    pub message: Option<String>,
}

/// The open socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    _file: SocketFile,
}

impl ControlSocket {
    /// Opens the socket and passes on what is asked to whoever reads `orders`. An order that is dropped without an answer is
    /// answered as refused.
    ///
    /// # Errors
    /// When another daemon answers there, or the socket cannot be made.
    pub fn open(run_dir: &Path, orders: mpsc::Sender<Order>) -> io::Result<Self> {
        let (file, listener) = SocketFile::open(run_dir, SOCKET)?;
        tokio::spawn(serve(listener, orders, PATIENCE));
        Ok(Self { _file: file })
    }
}

async fn serve(listener: UnixListener, orders: mpsc::Sender<Order>, patience: Duration) {
    let places = Arc::new(Semaphore::new(WAITING_ORDERS));
    loop {
        let stream = accept(&listener).await;
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        if orders.is_closed() {
            return;
        }
        let orders = orders.clone();
        tokio::spawn(async move {
            // Whoever does not listen does not learn of it.
            let _ = converse(stream, &orders, patience).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: UnixStream, orders: &mpsc::Sender<Order>, patience: Duration) -> io::Result<()> {
    let answer = match timeout(patience, hear(&mut stream)).await {
        Ok(Ok(request)) => carry_out(request, orders).await,
        Ok(Err(reason)) => Answer::Refused { reason },
        Err(_) => Answer::Refused { reason: format!("nothing was asked within {} s", patience.as_secs_f32()) },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(patience, stream.write_all(&text)).await?
}

async fn hear(stream: &mut UnixStream) -> Result<Request, String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(LONGEST_REQUEST));
    reader.read_until(b'\n', &mut line).await.map_err(|error| format!("the request cannot be read: {error}"))?;
    if line.last() != Some(&b'\n') {
        return Err(match line.len() as u64 {
            LONGEST_REQUEST => format!("the request is longer than {LONGEST_REQUEST} bytes"),
            _ => "the request ends without the end of a line".to_owned(),
        });
    }
    serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}"))
}

async fn carry_out(request: Request, orders: &mpsc::Sender<Order>) -> Answer {
    let (answer, waits) = oneshot::channel();
    let gone = || Answer::Refused { reason: "the daemon is ending, or broke the request off".to_owned() };
    if orders.send(Order { request, answer }).await.is_err() {
        return gone();
    }
    waits.await.unwrap_or_else(|_| gone())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A socket behind which every request is answered by its own name.
    fn echo(run_dir: &Path, patience: Duration) -> SocketFile {
        let (sender, mut orders) = mpsc::channel::<Order>(1);
        let (file, listener) = SocketFile::open(run_dir, SOCKET).unwrap();
        tokio::spawn(serve(listener, sender, patience));
        tokio::spawn(async move {
            while let Some(Order { request, answer }) = orders.recv().await {
                match request {
                    Request::Rollback => drop(answer),
                    Request::DryRun { net_conf } => {
                        let _ = answer.send(Answer::Done { message: net_conf.unwrap_or_default() });
                    }
                }
            }
        });
        file
    }

    async fn ask(run_dir: &Path, text: &[u8]) -> String {
        let mut stream = UnixStream::connect(run_dir.join(SOCKET)).await.unwrap();
        // Whoever says too much is not heard to the end.
        let _ = stream.write_all(text).await;
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_line_is_answered_by_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = echo(dir.path(), PATIENCE);
        let mode = fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (request, answer) in [
            ("{\"dry-run\":{\"net_conf\":\"x\\ny\"}}\n", "{\"done\":{\"message\":\"x\\ny\"}}\n"),
            ("{\"dry-run\":{}}\n", "{\"done\":{\"message\":\"\"}}\n"),
            ("\"rollback\"\n", "{\"refused\":{\"reason\":\"the daemon is ending, or broke the request off\"}}\n"),
            ("\"rollback\"", "{\"refused\":{\"reason\":\"the request ends without the end of a line\"}}\n"),
        ] {
            assert_eq!(ask(dir.path(), request.as_bytes()).await, answer);
        }
        let answer = ask(dir.path(), b"\"swap\"\n").await;
        assert!(answer.contains("the request is not understood: unknown variant `swap`"), "{answer}");
    }

    #[tokio::test]
    async fn requests_are_as_long_as_need_be() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = echo(dir.path(), PATIENCE);
        let request = |length: usize| format!("{{\"dry-run\":{{\"net_conf\":\"{}\"}}}}\n", "x".repeat(length));
        assert!(ask(dir.path(), request(1_000_000).as_bytes()).await.starts_with("{\"done\""));
        // Just so long that nothing of it is left unread, which would end the connection before the answer.
        let long = "x".repeat(LONGEST_REQUEST as usize);
        let answer = ask(dir.path(), long.as_bytes()).await;
        assert_eq!(answer, "{\"refused\":{\"reason\":\"the request is longer than 1048576 bytes\"}}\n");
    }

    #[tokio::test]
    async fn the_silent_do_not_hold_up_others() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = echo(dir.path(), Duration::from_millis(100));
        let mut silent = Vec::new();
        for _ in 0..2 * WAITING_ORDERS {
            silent.push(UnixStream::connect(dir.path().join(SOCKET)).await.unwrap());
        }
        let answer = timeout(PATIENCE, ask(dir.path(), b"{\"dry-run\":{}}\n")).await.unwrap();
        assert!(answer.starts_with("{\"done\""), "{answer}");
        for mut stream in silent {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "{\"refused\":{\"reason\":\"nothing was asked within 0.1 s\"}}\n");
        }
    }

    #[tokio::test]
    async fn one_daemon_answers() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, _orders) = mpsc::channel(1);
        let socket = ControlSocket::open(dir.path(), sender.clone()).unwrap();
        let error = ControlSocket::open(dir.path(), sender.clone()).unwrap_err();
        assert_eq!(error.to_string(), "another twill answers there");
        drop(socket);
        assert!(!dir.path().join(SOCKET).exists());
        ControlSocket::open(dir.path(), sender).unwrap();
    }
}
