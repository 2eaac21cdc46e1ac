//! Who may, and over which way: logins, tokens, certificates, proxies.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use twill_oci::Access;

use crate::front::{Front, Reply};
use crate::server::{LOGIN, Options, Server, nobody};
use crate::{COMPONENT, pulled, pushed, refused};

/// An access with the login of [`LOGIN`] for a registry.
pub(crate) fn ann(dir: &Path, registry: &str) -> Access {
    with_login(dir, registry, LOGIN.1)
}

fn with_login(dir: &Path, registry: &str, password: &str) -> Access {
    let file = dir.join("login.json");
    let entry = serde_json::json!({"auths": {registry: {"username": LOGIN.0, "password": password}}});
    fs::write(&file, entry.to_string()).unwrap();
    Access { config: Some(file), ..Access::default() }
}

#[tokio::test]
async fn a_registry_that_asks_for_a_login() {
    let Some(server) = Server::start("a_registry_that_asks_for_a_login", Options { login: true, ..Options::default() })
    else {
        return;
    };
    let (name, port) = (server.name("x:1"), server.port);
    let access = nobody(server.dir.path());
    let file = access.config.clone().unwrap();
    assert_eq!(
        refused(&access, &name).await,
        format!(
            "pulling oci://{name}: 127.0.0.1:{port} asks for a login, and there is none for it in {}; log in (docker login \
             127.0.0.1:{port}), or name a file with --registry-config",
            file.display()
        )
    );
    let wrong = with_login(server.dir.path(), &format!("127.0.0.1:{port}"), "geheim");
    assert_eq!(
        refused(&wrong, &name).await,
        format!(
            "pulling oci://{name}: 127.0.0.1:{port} does not accept the login in {}: 401 Unauthorized: authentication required",
            server.path("login.json").display()
        )
    );
    let right = ann(server.dir.path(), &format!("127.0.0.1:{port}"));
    let pinned = pushed(&right, &name, COMPONENT).await.unwrap();
    assert_eq!(pulled(&right, &pinned.to_string()).await.unwrap().component, COMPONENT);
}

/// A registry that wants tokens, which the same server gives to whoever has the login or the identity token.
fn with_tokens(registry: u16) -> Front {
    Front::start(move |asked| {
        let json = |text: &str| {
            Reply::Answer(200, vec![("Content-Type", "application/json".into())], text.as_bytes().to_vec())
        };
        let host = asked.header("host").unwrap_or_default().to_owned();
        if asked.path.starts_with("/token?service=test%20service&scope=repository%3Ax%3Apull") {
            // ann:U*U
            return match asked.header("authorization") {
                Some("Basic YW5uOlUqVQ==") => json(r#"{"token":"good"}"#),
                Some(_) => Reply::Answer(401, vec![], b"unknown user".to_vec()),
                None => json(r#"{"access_token":"anonymous"}"#),
            };
        }
        if asked.method == "POST" && asked.path == "/token" {
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            let expected = "grant_type=refresh_token&client_id=twill&refresh_token=identity";
            return if form.contains(expected) {
                json(r#"{"access_token":"good"}"#)
            } else {
                Reply::Answer(400, vec![], vec![])
            };
        }
        match asked.header("authorization") {
            Some("Bearer good") => Reply::Forward(registry),
            Some("Bearer anonymous") if asked.method == "GET" => Reply::Forward(registry),
            _ => {
                let actions = if asked.method == "GET" { "pull" } else { "pull,push" };
                let challenge = format!(
                    "Bearer realm=\"http://{host}/token\",service=\"test service\",scope=\"repository:x:{actions}\""
                );
                Reply::Answer(401, vec![("WWW-Authenticate", challenge)], vec![])
            }
        }
    })
}

#[tokio::test]
async fn tokens_are_fetched_and_shown() {
    let Some(server) = Server::start("tokens_are_fetched_and_shown", Options::default()) else { return };
    let front = with_tokens(server.port);
    let (name, host) = (front.name("x:1"), format!("127.0.0.1:{}", front.port));
    let right = ann(server.dir.path(), &host);
    let pinned = pushed(&right, &name, COMPONENT).await.unwrap();
    assert_eq!(pulled(&right, &pinned.to_string()).await.unwrap().component, COMPONENT);
    // The password went to the server of tokens and nowhere else.
    for asked in front.seen() {
        let is_password = asked.header("authorization").is_some_and(|value| value.starts_with("Basic"));
        assert_eq!(is_password, asked.path.starts_with("/token"), "{asked:?}");
    }
    assert_eq!(pulled(&nobody(server.dir.path()), &name).await.unwrap().component, COMPONENT);
    let wrong = with_login(server.dir.path(), &host, "geheim");
    assert_eq!(
        refused(&wrong, &name).await,
        format!(
            "pulling oci://{name}: {host} does not accept the login in {}: 401 Unauthorized: unknown user",
            server.path("login.json").display()
        )
    );
    let file = server.path("identity.json");
    fs::write(&file, serde_json::json!({"auths": {host: {"identitytoken": "identity"}}}).to_string()).unwrap();
    let identity = Access { config: Some(file), ..Access::default() };
    assert_eq!(pulled(&identity, &name).await.unwrap().component, COMPONENT);
}

#[tokio::test]
async fn passwords_do_not_go_to_just_anybody() {
    let dir = tempfile::tempdir().unwrap();
    for realm in ["http://192.0.2.1/token", "https://u:p@auth.example/", "/token", "ftp://auth.example/"] {
        let front = Front::start(move |_| {
            Reply::Answer(401, vec![("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))], vec![])
        });
        let host = format!("127.0.0.1:{}", front.port);
        let access = ann(dir.path(), &host);
        assert_eq!(
            refused(&access, &front.name("x:1")).await,
            format!(
                "pulling oci://{host}/x:1: {host} asks for a login in a way that is not known here: Bearer realm={realm:?}"
            )
        );
    }
}

#[tokio::test]
async fn certificates_of_an_authority_of_ones_own() {
    let test = "certificates_of_an_authority_of_ones_own";
    let Some(server) = Server::start(test, Options { tls: true, ..Options::default() }) else { return };
    let (name, port) = (server.name("x:1"), server.port);
    let stranger = nobody(server.dir.path());
    assert_eq!(
        refused(&stranger, &name).await,
        format!(
            "pulling oci://{name}: 127.0.0.1:{port} shows a certificate that cannot be trusted: invalid peer certificate: \
             UnknownIssuer; name its authority's certificate with --registry-ca"
        )
    );
    let access = Access { authorities: Some(server.path("ca.crt")), ..nobody(server.dir.path()) };
    let pinned = pushed(&access, &name, COMPONENT).await.unwrap();
    assert_eq!(pulled(&access, &pinned.to_string()).await.unwrap().component, COMPONENT);
    // The certificate is for another name.
    let error = refused(&access, &format!("localhost:{port}/x:1")).await;
    assert!(error.contains(&format!("localhost:{port} shows a certificate that cannot be trusted: ")), "{error}");
    for (file, problem) in [
        (server.path("nothing.crt"), "No such file or directory (os error 2)"),
        (server.path("config.yml"), "there is no certificate in it"),
    ] {
        let access = Access { authorities: Some(file.clone()), ..access.clone() };
        assert_eq!(
            refused(&access, &name).await,
            format!(
                "pulling oci://{name}: reading the registries' certificates {}: {problem}; correct --registry-ca",
                file.display()
            )
        );
    }
}

#[tokio::test]
async fn tls_is_not_left_again() {
    let test = "tls_is_not_left_again";
    let elsewhere = Front::start(|_| Reply::Answer(200, vec![], COMPONENT.to_vec()));
    let redirect = format!("http://127.0.0.1:{}/", elsewhere.port);
    let options = Options { tls: true, redirect: Some(&redirect), ..Options::default() };
    let Some(server) = Server::start(test, options) else { return };
    let access = Access { authorities: Some(server.path("ca.crt")), ..nobody(server.dir.path()) };
    let (name, port) = (server.name("x:1"), server.port);
    pushed(&access, &name, COMPONENT).await.unwrap();
    assert_eq!(
        refused(&access, &name).await,
        format!("pulling oci://{name}: 127.0.0.1:{port} redirects to 127.0.0.1:{}, without TLS", elsewhere.port)
    );
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn only_loopback_goes_without_tls() {
    // Nobody is asked: the host is this machine, by an address that is not loopback's.
    let access = Access { plain_http: vec!["0.0.0.0:1".into()], ..Access::default() };
    let error = refused(&access, "0.0.0.0:1/x:1").await;
    assert!(error.contains("0.0.0.0:1 cannot be reached: tcp connect error: Connection refused"), "{error}");
    let Some(server) = Server::start("only_loopback_goes_without_tls", Options::default()) else { return };
    let here = format!("0.0.0.0:{}", server.port);
    let access = nobody(server.dir.path());
    assert_eq!(
        refused(&access, &format!("{here}/x:1")).await,
        format!(
            "pulling oci://{here}/x:1: {here} does not speak TLS: its answer is of another protocol; if it is to be trusted \
             without, name it with --registry-plain-http"
        )
    );
    let access = Access { plain_http: vec![here.clone()], ..access };
    pushed(&access, &format!("{here}/x:1"), COMPONENT).await.unwrap();
    assert_eq!(pulled(&access, &format!("{here}/x:1")).await.unwrap().component, COMPONENT);
}

/// A proxy that leads everybody to one port, whomever they ask for.
fn proxy(to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
                log.lock().unwrap().push(head);
                let registry = TcpStream::connect(("127.0.0.1", to)).unwrap();
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut up, mut down) = (registry.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut reader, &mut up));
                let mut registry = registry;
                let _ = std::io::copy(&mut registry, &mut down);
            });
        }
    });
    (port, seen)
}

#[tokio::test]
async fn through_a_proxy() {
    let Some(server) = Server::start("through_a_proxy", Options { tls: true, ..Options::default() }) else { return };
    let (port, seen) = proxy(server.port);
    let access = Access {
        authorities: Some(server.path("ca.crt")),
        https_proxy: Some(format!("http://ann:secret@127.0.0.1:{port}")),
        no_proxy: Some("other.test".into()),
        ..nobody(server.dir.path())
    };
    let name = "registry.test/x:1";
    pushed(&access, name, COMPONENT).await.unwrap();
    assert_eq!(pulled(&access, name).await.unwrap().component, COMPONENT);
    let heads = seen.lock().unwrap().clone();
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("proxy-authorization: basic yw5uonnly3jlda=="), "{head}");
    }
    // Loopback is reached directly, and so is who is excepted.
    assert_eq!(pulled(&access, &server.name("x:1")).await.unwrap().component, COMPONENT);
    let except = Access { no_proxy: Some("registry.test".into()), ..access.clone() };
    let error = refused(&except, name).await;
    assert!(error.contains("registry.test cannot be reached: dns error"), "{error}");
    let unknown = Access { https_proxy: Some("https://127.0.0.1:1".into()), ..access };
    assert_eq!(
        refused(&unknown, name).await,
        "pulling oci://registry.test/x:1: the proxy https://127.0.0.1:1/ cannot be used: only proxies at http:// addresses are \
         known here; correct HTTPS_PROXY"
    );
}
