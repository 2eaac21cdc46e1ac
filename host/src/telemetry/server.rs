//! The HTTP server: `/healthz`, `/readyz` as flannel has them, and `/metrics`.
//!
//! It listens where everybody on the network may connect, so nobody who does is trusted: so many connections, the oldest
//! goes for a new one; so much time for each; one request a connection; nothing that a request holds is used but its
//! method and path.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::metrics::metrics;
use super::process::Process;
use super::pulse::{Pulse, Standing};
use super::text;
use crate::daemon::status::{Question, Status};
use crate::pool::Keeper;

/// Connections at a time. A kubelet and a few scrapers need one each.
const MOST_CONNECTIONS: usize = 64;
/// A request's head has to be there by then ...
const HEAD: Duration = Duration::from_secs(5);
/// ... and the answer taken by then.
const WHOLE: Duration = Duration::from_secs(15);
/// So long a scrape waits for the loop; then it gets what is known without.
const ANSWER: Duration = Duration::from_secs(5);
/// After a failure to accept a connection (no file descriptor left, say).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The smallest buffer that hyper takes; a request of ours is a line.
const BUFFER: usize = 8192;

/// What answers are made of.
struct Desk {
    pulse: Arc<Pulse>,
    questions: mpsc::Sender<Question>,
    keeper: Arc<Keeper>,
}

/// Answers at `address` until the process ends, on a thread of its own; returns where, in case the port was left to the
/// kernel. `questions` go to the daemon's loop; the keeper looks at the pod addresses.
///
/// # Errors
/// When nobody can listen there.
pub fn serve(
    address: SocketAddr,
    pulse: Arc<Pulse>,
    questions: mpsc::Sender<Question>,
    keeper: Arc<Keeper>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let desk = Arc::new(Desk { pulse, questions, keeper });
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::Builder::new().name("telemetry".into()).spawn(move || runtime.block_on(accept(listener, &desk)))?;
    tracing::info!(%address, "answering /healthz, /readyz and /metrics");
    Ok(address)
}

async fn accept(listener: tokio::net::TcpListener, desk: &Arc<Desk>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= MOST_CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let serving = tokio::time::timeout(WHOLE, converse(stream, Arc::clone(desk)));
                connections.push_back(tokio::spawn(serving).abort_handle());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection of a probe or scraper");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection. What goes wrong with it is the other side's affair.
async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(|request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request.method(), request.uri().path()).await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Desk {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/healthz" => match self.pulse.feel().await {
                Standing::Stuck(silence) => plain(StatusCode::SERVICE_UNAVAILABLE, stuck(silence)),
                Standing::Starting(_) | Standing::Running(_) => plain(StatusCode::OK, "flanneld is running".to_owned()),
            },
            "/readyz" => match waiting(self.pulse.feel().await) {
                None => plain(StatusCode::OK, "flanneld is ready".to_owned()),
                Some(reason) => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, format!("flanneld is not ready yet: {reason}\n"))
                }
            },
            "/metrics" => self.metrics().await,
            _ => plain(StatusCode::NOT_FOUND, "not found: there are /healthz, /readyz and /metrics\n".to_owned()),
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let status = self.ask().await;
        let status = match status {
            Some(status) => Some(status.with_addresses(Arc::clone(&self.keeper)).await),
            None => None,
        };
        let text = text::render(&metrics(status.as_ref(), &Process::own()));
        let mut response = Response::new(Full::new(Bytes::from(text)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
        response
    }

    /// The status document; none if the loop does not run, or has no time.
    async fn ask(&self) -> Option<Status> {
        if !matches!(self.pulse.feel().await, Standing::Running(_)) {
            return None;
        }
        let (question, answer) = oneshot::channel();
        let asking = async {
            self.questions.send(question).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(ANSWER, asking).await.ok().flatten()
    }
}

/// What the node's network waits for.
fn waiting(standing: Standing) -> Option<String> {
    match standing {
        Standing::Running(reason) => reason.map(|not_ready| not_ready.reason),
        Standing::Starting(what) => Some(format!("starting: {what}")),
        Standing::Stuck(silence) => Some(stuck(silence)),
    }
}

fn stuck(silence: Duration) -> String {
    format!("the daemon's loop has not moved for {} s", silence.as_secs())
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
