//! Whether pods can be attached, in the daemon's own words.
//!
//! The daemon answers whoever connects to a socket in its run directory with one line, and hangs up. That costs neither
//! side a document to write or to parse, and a socket, unlike a file, tells a daemon that is gone from one that lives.
//!
//! A daemon that is gone, or has just started, is no reason to turn pods away: the network stays as it left it. So with
//! a complete `subnet.env`, only a daemon that says what is wrong makes a difference, and only to STATUS.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::subnet::Subnet;
use crate::{Error, NetConf};

/// Name of the socket in the run directory.
const SOCKET: &str = "readiness.sock";
/// So long a daemon may take to answer. It needs half of that at the most.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read; the rest is not worth it.
const LONGEST: usize = 4096;

/// What the daemon says. Reasons have no line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The node's pod network works.
    Ready,
    /// It is not known yet whether it works.
    Starting(String),
    /// New pods have to wait for something.
    Waiting(String),
    /// Something is wrong, for pods that are there as well.
    Impaired(String),
    /// Nobody is there, or nobody who makes sense.
    Silent {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        problem: String,
    },
}

impl Answer {
    fn parse(line: &str) -> Option<Answer> {
        let line = line.trim_end();
        if line == "ready" {
            return Some(Answer::Ready);
        }
        let (word, reason) = line.split_once(": ")?;
        let reason = reason.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        match word {
            "starting" => Some(Answer::Starting(reason)),
            "waiting" => Some(Answer::Waiting(reason)),
            "impaired" => Some(Answer::Impaired(reason)),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ready => {
                write!(f, "the network daemon says that it is ready: does it write another file (--subnet-file)?")
            }
            Answer::Starting(reason) => write!(f, "the network daemon is starting: {reason}"),
            Answer::Waiting(reason) | Answer::Impaired(reason) => write!(f, "the network daemon says: {reason}"),
            Answer::Silent { socket, problem } => {
                write!(f, "no network daemon answers at {} ({problem}): does it run?", socket.display())
            }
        }
    }
}

/// What the daemon wrote of the pod network; without it, why not.
pub(crate) fn subnet(conf: &NetConf) -> Result<Subnet, Error> {
    Subnet::read(&conf.subnet_file).map_err(|error| Error::Subnet { error, daemon: Box::new(ask(&conf.run_dir)) })
}

/// The same if new pods can use it, as far as the daemon says.
pub(crate) fn ready(conf: &NetConf) -> Result<Subnet, Error> {
    let subnet = subnet(conf).map_err(|error| Error::NotReady(Box::new(error)))?;
    match ask(&conf.run_dir) {
        answer @ Answer::Waiting(_) => Err(Error::Waiting(answer)),
        answer @ Answer::Impaired(_) => Err(Error::Impaired(answer)),
        Answer::Ready | Answer::Starting(_) | Answer::Silent { .. } => Ok(subnet),
    }
}

fn ask(run_dir: &Path) -> Answer {
    let socket = run_dir.join(SOCKET);
    let heard = hear(&socket).map_err(|error| match error.kind() {
        // What a time-out is called depends on the call that it ends.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("nothing was said within {} s", PATIENCE.as_secs()),
        _ => error.to_string(),
    });
    match heard.and_then(|line| Answer::parse(&line).ok_or_else(|| format!("it said {line:?}"))) {
        Ok(answer) => answer,
        Err(problem) => Answer::Silent { socket, problem },
    }
}

fn hear(path: &Path) -> io::Result<String> {
    let end = Instant::now() + PATIENCE;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A daemon that hangs has nobody to take connections, and `connect` waits for a free place.
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut stream = UnixStream::from(socket);
    let mut said = Vec::new();
    let mut buffer = [0; LONGEST];
    while said.len() < LONGEST {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => said.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn answer_to(said: &'static [u8]) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let daemon = thread::spawn(move || listener.accept().unwrap().0.write_all(said).unwrap());
        let answer = ask(dir.path());
        daemon.join().unwrap();
        answer
    }

    #[test]
    fn a_line_is_an_answer() {
        for (said, expected) in [
            ("ready\n", Answer::Ready),
            ("starting: reading the nodes\n", Answer::Starting("reading the nodes".into())),
            ("waiting: node n1: no podCIDR\n", Answer::Waiting("node n1: no podCIDR".into())),
            ("impaired: odd \u{1b}[2J\nwords\n", Answer::Impaired("odd \u{fffd}[2J\u{fffd}words".into())),
        ] {
            assert_eq!(answer_to(said.as_bytes()), expected);
        }
    }

    #[test]
    fn whoever_says_something_else_is_not_the_daemon() {
        for said in
            [&b""[..], b"ready!\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xff", b"waiting", &[b'x'; 5 * LONGEST]]
        {
            assert!(matches!(answer_to(said), Answer::Silent { problem, .. } if problem.starts_with("it said ")));
        }
    }

    #[test]
    fn nobody_is_named_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(SOCKET).display().to_string();
        for problem in ["No such file or directory (os error 2)", "Connection refused (os error 111)"] {
            let said = ask(dir.path()).to_string();
            assert_eq!(said, format!("no network daemon answers at {place} ({problem}): does it run?"));
            drop(UnixListener::bind(dir.path().join(SOCKET)));
        }
        let far = Path::new("/").join("x".repeat(200));
        assert!(matches!(ask(&far), Answer::Silent { .. }), "a path that no socket can have");
    }

    #[test]
    fn a_daemon_that_hangs_holds_nobody_up_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // The first waits for an answer, the next ones for a place in the line.
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let dir = dir.path().to_owned();
                thread::spawn(move || ask(&dir))
            })
            .collect();
        for one in asking {
            let Answer::Silent { problem, .. } = one.join().unwrap() else { panic!("nobody answered") };
            assert_eq!(problem, "nothing was said within 1 s");
        }
    }
}
