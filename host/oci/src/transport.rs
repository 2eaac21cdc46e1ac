//! Requests and answers, over TLS, through a proxy where the environment says so, and never longer or larger than allowed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::artifact::shown;
use super::error::{Problem, causes};
use super::reference::host_and_port;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may be silent while it takes in a component.
const UPLOAD: Duration = Duration::from_secs(300);
/// Registries send their clients to where the content lies: one step, sometimes two.
const MOST_REDIRECTS: usize = 5;

/// How registries are reached, and as whom. The default: with the system's certificates, directly, as nobody.
#[derive(Clone, Default)]
pub struct Access {
    /// A file in the form of Docker's `config.json`, read anew for each pull; none: where that usually is.
    pub config: Option<PathBuf>,
    /// Whether credential helpers that it names may be run.
    pub helpers: bool,
    /// Certificates of authorities (PEM) that are trusted beside those of the system.
    pub authorities: Option<PathBuf>,
    /// Hosts, with the port if it is not 80, that are trusted without TLS. Hosts on this machine's loopback need no mention.
    pub plain_http: Vec<String>,
    /// The proxy for everything but loopback and plain HTTP, as `http://proxy.example:3128`.
    pub https_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without it, separated by commas.
    pub no_proxy: Option<String>,
}

impl Access {
    /// Takes the proxy from the environment: `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case.
    #[must_use]
    pub fn with_proxy_of_environment(mut self) -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.https_proxy = given("HTTPS_PROXY").or_else(|| given("https_proxy"));
        self.no_proxy = given("NO_PROXY").or_else(|| given("no_proxy"));
        self
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, helpers, authorities, plain_http, https_proxy: _, no_proxy } = self;
        let mut shown = f.debug_struct("Access");
        shown.field("config", config).field("helpers", helpers).field("authorities", authorities);
        // A proxy's address may have a password in it.
        shown.field("plain_http", plain_http).field("no_proxy", no_proxy).finish_non_exhaustive()
    }
}

type Direct = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
type Tunneled = Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>;

/// Connections to servers.
pub(crate) struct Transport {
    tls: ClientConfig,
    plain: Vec<String>,
    proxies: Matcher,
    direct: Direct,
    tunneled: OnceLock<Tunneled>,
}

impl Transport {
    /// Reads the certificates; connects to nobody.
    pub(crate) fn new(access: &Access) -> Result<Self, Problem> {
        let tls = tls(access)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
        let mut proxies = Matcher::builder();
        if let Some(proxy) = &access.https_proxy {
            proxies = proxies.https(proxy.clone());
        }
        if let Some(no) = &access.no_proxy {
            proxies = proxies.no(no.clone());
        }
        Ok(Self {
            direct: Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp())),
            tls,
            plain: access.plain_http.clone(),
            proxies: proxies.build(),
            tunneled: OnceLock::new(),
        })
    }

    /// Where a server's interface begins. Loopback may be with TLS or without, which is found out.
    pub(crate) async fn begin(&self, server: &str) -> Result<Uri, Problem> {
        let uri = |scheme: &str| {
            format!("{scheme}://{server}/v2/")
                .parse::<Uri>()
                .map_err(|error| Problem::Unreachable { host: server.to_owned(), error: error.to_string() })
        };
        let https = uri("https")?;
        if self.is_named_plain(&https) {
            return uri("http");
        }
        if is_loopback(&https)
            && let Err(Problem::NoTls { .. }) = self.send(Method::GET, &https, &[], Bytes::new()).await
        {
            return uri("http");
        }
        Ok(https)
    }

    /// Sends a request that leads to content, and follows where the answer sends it. What shows who asks is for the first
    /// server alone.
    pub(crate) async fn get(
        &self,
        method: &Method,
        first: &Uri,
        headers: &[(http::HeaderName, HeaderValue)],
    ) -> Result<Response<Incoming>, Problem> {
        let (mut uri, mut headers) = (first.clone(), headers.to_vec());
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.send(method.clone(), &uri, &headers, Bytes::new()).await?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = self.next(&uri, &answer)?;
            if !is_same_origin(&uri, &next) {
                headers.retain(|(name, _)| name != AUTHORIZATION);
            }
            uri = next;
        }
        Err(Problem::Redirect { host: host(first), why: format!("more than {MOST_REDIRECTS} times") })
    }

    /// Where an answer sends its client.
    pub(crate) fn next(&self, from: &Uri, answer: &Response<Incoming>) -> Result<Uri, Problem> {
        let wrong = |why: String| Problem::Redirect { host: host(from), why };
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| wrong("without saying where".to_owned()))?;
        let next =
            resolve(from, location).ok_or_else(|| wrong(format!("to {:?}, which is no address", shown(location))))?;
        let goes_plain = next.scheme() == Some(&Scheme::HTTP);
        if goes_plain && (from.scheme() == Some(&Scheme::HTTPS) || !self.may_be_plain(&next)) {
            return Err(wrong(format!("to {}, without TLS", shown(&host(&next)))));
        }
        Ok(next)
    }

    /// Sends one request and awaits the head of its answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(http::HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let patience = if body.is_empty() { SILENCE } else { UPLOAD };
        let wrong = |error: http::Error| Problem::Unreachable { host: host(uri), error: error.to_string() };
        let mut request = Request::builder().method(method).uri(uri).body(Full::new(body)).map_err(wrong)?;
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("twill/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in headers {
            request.headers_mut().append(name, value.clone());
        }
        let answer = match self.proxy(uri)? {
            None => tokio::time::timeout(patience, self.direct.request(request)).await,
            Some(client) => tokio::time::timeout(patience, client.request(request)).await,
        };
        match answer {
            Ok(answer) => answer.map_err(|error| unreachable(uri, &error)),
            Err(_) => Err(Problem::Silent { host: host(uri), seconds: patience.as_secs() }),
        }
    }

    /// What goes through the proxy, if this does.
    fn proxy(&self, uri: &Uri) -> Result<Option<&Tunneled>, Problem> {
        if uri.scheme() != Some(&Scheme::HTTPS) || is_loopback(uri) {
            return Ok(None);
        }
        let Some(proxy) = self.proxies.intercept(uri) else { return Ok(None) };
        let to = proxy.uri();
        if to.scheme() != Some(&Scheme::HTTP) {
            let problem = "only proxies at http:// addresses are known here".to_owned();
            return Err(Problem::Proxy { proxy: shown(&to.to_string()), problem });
        }
        // There is only one in the environment.
        Ok(Some(self.tunneled.get_or_init(|| {
            let mut tunnel = Tunnel::new(to.clone(), tcp());
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_only().enable_http1();
            Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tunnel))
        })))
    }

    /// Whether a server may be asked without TLS.
    pub(crate) fn may_be_plain(&self, uri: &Uri) -> bool {
        is_loopback(uri) || self.is_named_plain(uri)
    }

    fn is_named_plain(&self, uri: &Uri) -> bool {
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        self.plain.iter().any(|plain| plain.eq_ignore_ascii_case(authority))
    }
}

/// Reads content of a known length, or of one that is not above the limit.
pub(crate) async fn read(
    what: &'static str,
    uri_host: &str,
    body: Incoming,
    size: Option<u64>,
    limit: u64,
) -> Result<Vec<u8>, Problem> {
    let mut body = body;
    let mut bytes: Vec<u8> = Vec::new();
    let limit = size.unwrap_or(limit);
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) if size.is_some() => break,
            Ok(Some(Err(error))) => {
                return Err(Problem::Unreachable { host: uri_host.to_owned(), error: causes(&error) });
            }
            Err(_) => return Err(Problem::Silent { host: uri_host.to_owned(), seconds: SILENCE.as_secs() }),
        };
        if let Some(data) = frame.data_ref() {
            if bytes.len() as u64 + data.len() as u64 > limit {
                return Err(Problem::TooLong { what, limit });
            }
            bytes.extend_from_slice(data);
        }
    }
    match size {
        Some(size) if (bytes.len() as u64) < size => Err(Problem::Truncated { what, got: bytes.len() as u64, size }),
        _ => Ok(bytes),
    }
}

/// What a server says about an error, after a colon; nothing, if that is not short text.
pub(crate) async fn said(body: Incoming) -> String {
    const ENOUGH: u64 = 16 << 10;
    let Ok(bytes) = read("the answer", "", body, None, ENOUGH).await else { return String::new() };
    let errors: Option<Vec<String>> = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|answer| {
        let errors = answer.get("errors")?.as_array()?;
        Some(errors.iter().filter_map(|error| Some(error.get("message")?.as_str()?.to_owned())).collect())
    });
    let text = errors.map_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned(), |errors| errors.join("; "));
    if text.is_empty() || text.starts_with('<') { String::new() } else { format!(": {}", shown(&text)) }
}

/// Host and port of an address, as it has them.
pub(crate) fn host(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// Whether two addresses are of one server.
pub(crate) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
    let name = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && name(one) == name(other) && port(one) == port(other)
}

fn is_loopback(uri: &Uri) -> bool {
    let Some((host, _)) = uri.authority().and_then(|authority| host_and_port(authority.as_str())) else { return false };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address as it is meant by one who stands at another.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let text = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let (folder, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    // A name and a password in an address are nobody's.
    (is_http && uri.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty())).then_some(uri)
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp
}

/// The system's authorities, and those that somebody names.
fn tls(access: &Access) -> Result<ClientConfig, Problem> {
    let mut roots = RootCertStore::empty();
    // Where the system has none, every certificate says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &access.authorities {
        let wrong = |problem: String| Problem::Authorities { file: file.display().to_string(), problem };
        let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(causes(&error)))?;
            roots.add(certificate).map_err(|error| wrong(causes(&error)))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let wrong = |error: rustls::Error| Problem::Authorities { file: String::new(), problem: error.to_string() };
    Ok(config.map_err(wrong)?.with_root_certificates(roots).with_no_client_auth())
}

/// Says what a failed connection means.
fn unreachable(uri: &Uri, error: &ClientError) -> Problem {
    let host = host(uri);
    match tls_error(error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            return Problem::NoTls { host, error: "its answer is of another protocol".to_owned() };
        }
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            return Problem::Untrusted { host, error: error.to_string() };
        }
        Some(error) => return Problem::Unreachable { host, error: format!("TLS: {error}") },
        None => {}
    }
    // The outermost words are about the client that was used.
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), causes);
    Problem::Unreachable { host, error: cause }
}

/// What TLS has against a connection; errors of the system are wrapped around it, sometimes twice.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    match error.downcast_ref::<std::io::Error>() {
        Some(wrapped) => tls_error(wrapped.get_ref()?),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn where_answers_lead() {
        let from = uri("https://r.example:5000/v2/a/blobs/x?y=1");
        let resolved = |location: &str| resolve(&from, location).map(|uri| uri.to_string());
        assert_eq!(resolved("https://cdn.example/b?c#d").as_deref(), Some("https://cdn.example/b?c"));
        assert_eq!(resolved("/v2/z").as_deref(), Some("https://r.example:5000/v2/z"));
        assert_eq!(resolved("z?q").as_deref(), Some("https://r.example:5000/v2/a/blobs/z?q"));
        assert_eq!(resolved("//cdn.example/b").as_deref(), Some("https://cdn.example/b"));
        for nowhere in
            ["ftp://x/y", "https://user:secret@cdn.example/b", "https://", "http://a b/", "file:///etc/passwd"]
        {
            assert_eq!(resolved(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn servers_that_are_one() {
        let same = |a: &str, b: &str| is_same_origin(&uri(a), &uri(b));
        assert!(same("https://R.example/a", "https://r.example:443/b"));
        for (a, b) in [
            ("https://r.example/", "http://r.example/"),
            ("https://r.example/", "https://r.example:5000/"),
            ("https://r.example/", "https://s.example/"),
            ("http://127.0.0.1:1/", "http://127.0.0.1:2/"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn who_is_trusted_without_tls() {
        let access = Access { plain_http: vec!["r.example:5000".into()], ..Access::default() };
        let transport = Transport::new(&access).unwrap();
        for (address, may) in [
            ("https://r.example:5000/", true),
            ("https://r.example/", false),
            ("https://r.example:5001/", false),
            ("http://127.0.0.7:80/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("http://192.0.2.1/", false),
        ] {
            assert_eq!(transport.may_be_plain(&uri(address)), may, "{address}");
        }
    }
}
