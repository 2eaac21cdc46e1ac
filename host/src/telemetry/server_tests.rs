//! The server by its sockets, as probes, scrapers and people with bad intentions use it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::daemon::readiness::NotReady;
use crate::pool::{self, Places};

fn server() -> (SocketAddr, Arc<Pulse>, mpsc::Receiver<Question>) {
    let (questions, loop_side) = mpsc::channel(1);
    let pulse = Arc::new(Pulse::default());
    let address = serve("127.0.0.1:0".parse().unwrap(), Arc::clone(&pulse), questions, keeper()).unwrap();
    (address, pulse, loop_side)
}

/// Of a node without any pod.
fn keeper() -> Arc<Keeper> {
    let nowhere = || PathBuf::from("/nonexistent");
    let places = Places {
        pool: nowhere(),
        state: nowhere(),
        results: nowhere(),
        runtimes: Vec::new(),
        run: nowhere(),
        grace: pool::GRACE,
    };
    Arc::new(Keeper::new(places, false))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The status code and the body.
fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = connect(address);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: n1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn paths_and_texts() {
    let (address, pulse, _questions) = server();
    assert_eq!(ask(address, "GET", "/healthz"), (200, "flanneld is running".into()));
    pulse.starting("loading backends");
    let starting = "flanneld is not ready yet: starting: loading backends\n";
    assert_eq!(ask(address, "GET", "/readyz"), (503, starting.into()));
    pulse.beat(None);
    assert_eq!(ask(address, "GET", "/readyz?verbose"), (200, "flanneld is ready".into()));
    pulse.beat(Some(NotReady::waiting("there is no Node n1 yet")));
    assert_eq!(ask(address, "GET", "/readyz"), (503, "flanneld is not ready yet: there is no Node n1 yet\n".into()));
    assert_eq!(ask(address, "HEAD", "/healthz"), (200, String::new()));
    assert_eq!(ask(address, "POST", "/healthz").0, 405);
    assert_eq!(ask(address, "GET", "/").0, 404);
}

#[test]
fn a_loop_that_is_stuck_is_told_by_both() {
    let (address, pulse, _questions) = server();
    pulse.beat(None);
    pulse.was_silent_for(Duration::from_secs(90));
    let (healthz, readyz) = (ask(address, "GET", "/healthz"), ask(address, "GET", "/readyz"));
    assert_eq!((healthz.0, readyz.0), (503, 503));
    assert!(healthz.1.starts_with("the daemon's loop has not moved for 9"), "{}", healthz.1);
    assert!(readyz.1.starts_with("flanneld is not ready yet: the daemon's loop has not moved for 9"), "{}", readyz.1);
    pulse.beat(None);
    assert_eq!(ask(address, "GET", "/healthz").0, 200);
}

#[test]
fn a_loop_that_gives_no_status_leaves_the_process_visible() {
    let (address, pulse, _questions) = server();
    for running in [false, true] {
        if running {
            pulse.beat(None);
        }
        let (code, text) = ask(address, "GET", "/metrics");
        assert_eq!(code, 200);
        assert!(text.contains("\ntwill_ready 0\n") && text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(!text.contains("twill_peers"), "{text}");
    }
}

#[test]
fn slow_and_many_connections_keep_nobody_out() {
    let (address, _pulse, _questions) = server();
    let mut slow: Vec<TcpStream> = (0..MOST_CONNECTIONS + 10).map(|_| connect(address)).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ");
    }
    assert_eq!(ask(address, "GET", "/healthz").0, 200);
    // The first had to go for the newer ones, at once; the last may stay until it is late with its head.
    let begin = Instant::now();
    let mut rest = Vec::new();
    let _ = slow.first_mut().unwrap().read_to_end(&mut rest);
    assert!(begin.elapsed() < HEAD / 2);
    let _ = slow.last_mut().unwrap().read_to_end(&mut rest);
    assert!(begin.elapsed() < WHOLE, "{:?}", begin.elapsed());
}

#[test]
fn garbage_and_long_heads_are_turned_away() {
    let (address, _pulse, _questions) = server();
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    for request in ["\x16\x03\x01\x02\r\n\r\n", long.as_str()] {
        let mut stream = connect(address);
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(ask(address, "GET", "/healthz").0, 200);
}

#[test]
fn an_address_in_use_is_an_error() {
    let (address, pulse, _questions) = server();
    let (questions, _) = mpsc::channel(1);
    assert_eq!(serve(address, pulse, questions, keeper()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
