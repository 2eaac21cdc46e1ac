//! Content that is not what was asked for, and artifacts that are no components.

use std::sync::Arc;

use twill_model::Digest;
use twill_oci::{Access, Interface, pull};

use crate::front::{Asked, Front, Reply};
use crate::server::{Options, Server, nobody};
use crate::{COMPONENT, LIMIT, pushed, reference, refused};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with the artifact `x:1`, and a server in front of it that does something else with the component.
async fn spoiled(
    test: &str,
    spoil: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
) -> Option<(Server, Front, Access)> {
    let server = Server::start(test, Options::default())?;
    let access = nobody(server.dir.path());
    pushed(&access, &server.name("x:1"), COMPONENT).await.unwrap();
    let port = server.port;
    let front = Front::start(move |asked| spoil(asked).unwrap_or(Reply::Forward(port)));
    Some((server, front, access))
}

fn is_component(asked: &Asked) -> bool {
    asked.path.ends_with(&Digest::of(COMPONENT).to_string())
}

#[tokio::test]
async fn a_component_that_ends_early() {
    let whole = COMPONENT.len();
    let half = &COMPONENT[..5];
    let ends = [
        // The connection is cut.
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n\r\n").as_bytes(), half].concat(),
        // The server says that this is all.
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".as_slice(), half].concat(),
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n".as_slice(), half, b"\r\n0\r\n\r\n"].concat(),
        // The connection is cut amid a chunk.
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n".as_slice(), half].concat(),
        // The end of the connection is the end of the content.
        [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), half].concat(),
    ];
    for end in ends {
        let said = String::from_utf8_lossy(&end).into_owned();
        let spoil = move |asked: &Asked| is_component(asked).then(|| Reply::Bytes(end.clone()));
        let Some((_server, front, access)) = spoiled("a_component_that_ends_early", spoil).await else { return };
        let name = front.name("x:1");
        assert_eq!(
            refused(&access, &name).await,
            format!("pulling oci://{name}: the component ended after 5 of {whole} bytes; nothing of it is kept"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_component_that_is_another() {
    let other = b"\0asm ANDsoon!!".to_vec();
    assert_eq!(other.len(), COMPONENT.len());
    let found = Digest::of(&other);
    let spoil = move |asked: &Asked| is_component(asked).then(|| Reply::Answer(200, vec![], other.clone()));
    let Some((_server, front, access)) = spoiled("a_component_that_is_another", spoil).await else { return };
    let name = front.name("x:1");
    let wanted = Digest::of(COMPONENT);
    assert_eq!(
        refused(&access, &name).await,
        format!(
            "pulling oci://{name}: the component is sha256:{found}, and the one asked for is sha256:{wanted}; nothing of it \
             is kept"
        )
    );
}

#[tokio::test]
async fn a_component_without_an_end() {
    let spoil = |asked: &Asked| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        is_component(asked).then(|| Reply::Endless(head, b"8\r\nnonsense\r\n".repeat(1000)))
    };
    let Some((_server, front, access)) = spoiled("a_component_without_an_end", spoil).await else { return };
    let name = front.name("x:1");
    assert_eq!(
        refused(&access, &name).await,
        format!("pulling oci://{name}: the component has more than {} bytes; nothing of it is kept", COMPONENT.len())
    );
}

#[tokio::test]
async fn a_manifest_without_an_end() {
    let front = Front::start(|_| {
        Reply::Endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            b"8\r\n{\"a\":[[[\r\n".repeat(1000),
        )
    });
    let name = front.name("x:1");
    assert_eq!(
        refused(&Access::default(), &name).await,
        format!("pulling oci://{name}: the manifest has more than 4194304 bytes; nothing of it is kept")
    );
}

#[tokio::test]
async fn a_manifest_that_is_another() {
    let front = Front::start(|_| Reply::Answer(200, vec![("Content-Type", MANIFEST.into())], b"{}".to_vec()));
    let wanted = Digest::of(b"wanted");
    let name = front.name(&format!("x:1@sha256:{wanted}"));
    assert_eq!(
        refused(&Access::default(), &name).await,
        format!(
            "pulling oci://{name}: the manifest is sha256:{}, and the one asked for is sha256:{wanted}; nothing of it is kept",
            Digest::of(b"{}")
        )
    );
}

#[tokio::test]
async fn what_is_no_component_is_not_fetched() {
    let Some(server) = Server::start("what_is_no_component_is_not_fetched", Options::default()) else { return };
    let access = nobody(server.dir.path());
    let config =
        |os: &str, component: &str| format!(r#"{{"architecture":"wasm","os":"{os}","component":{component}}}"#);
    let (module, other) =
        (config("wasip1", "null"), config("wasip2", r#"{"exports":["wasi:cli/run@0.2.6"],"imports":[]}"#));
    for content in [COMPONENT, b"{}", module.as_bytes(), other.as_bytes()] {
        server.blob("x", content);
    }
    let wasm = "application/vnd.wasm.config.v0+json";
    let put = |tag: &str, config: (&str, &str), layers: &[(&str, usize)]| {
        let layers: Vec<String> = layers
            .iter()
            .map(|(kind, size)| {
                format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":{size}}}"#, Digest::of(COMPONENT))
            })
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{}","digest":"sha256:{}","size":{}}},"layers":[{}]}}"#,
            config.0,
            Digest::of(config.1.as_bytes()),
            config.1.len(),
            layers.join(",")
        );
        server.manifest("x", tag, MANIFEST, &manifest);
    };
    let image = "application/vnd.oci.image.config.v1+json";
    let (layer, size) = ("application/wasm", COMPONENT.len());
    put("image", (image, "{}"), &[("application/vnd.oci.image.layer.v1.tar+gzip", size)]);
    put("layers", (image, "{}"), &[(layer, size), (layer, size)]);
    put("large", (wasm, &other), &[(layer, usize::try_from(LIMIT).unwrap() + 1)]);
    put("module", (wasm, &module), &[(layer, size)]);
    put("other", (wasm, &other), &[(layer, size)]);
    let port = server.port;
    let front = Arc::new(Front::start(move |_| Reply::Forward(port)));
    let accept = |interface: &Interface| Err(format!("exports {}", interface.exports.join(", ")));
    for (tag, why) in [
        ("image", "holds \"application/vnd.oci.image.layer.v1.tar+gzip\", and a component is \"application/wasm\""),
        ("layers", "has 2 layers, and a component is one: is it a container image?"),
        ("large", "holds 1048577 bytes, and a component has 1 to 1048576"),
        ("module", "is for wasm and wasip1, and a backend is a component for wasm and wasip2"),
        ("other", "exports wasi:cli/run@0.2.6"),
    ] {
        let name = front.name(&format!("x:{tag}"));
        let error = pull(&reference(&name), &access, LIMIT, &accept).await.unwrap_err();
        assert_eq!(error.to_string(), format!("pulling oci://{name}: the artifact {why}"));
    }
    let fetched: Vec<_> = front.seen().into_iter().filter(is_component).collect();
    assert!(fetched.is_empty(), "{fetched:?}");
    // Registries check what indexes name.
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    server.manifest("x", "index", "application/vnd.oci.image.index.v1+json", index);
    assert_eq!(
        refused(&access, &front.name("x:index")).await,
        format!(
            "pulling oci://{}: the artifact is an index of several artifacts: name one of them by its own digest",
            front.name("x:index")
        )
    );
}

#[tokio::test]
async fn answers_that_make_no_sense() {
    let said = |answer: &'static str, status: u16| async move {
        let front = Front::start(move |_| Reply::Answer(status, vec![], answer.as_bytes().to_vec()));
        let error = refused(&Access::default(), &front.name("x:1")).await;
        error.replace(&format!("127.0.0.1:{}", front.port), "HOST")
    };
    assert_eq!(
        said(r#"{"errors":[{"code":"X","message":"disk\u001b[2J full"},{"message":"come back"}]}"#, 500).await,
        "pulling oci://HOST/x:1: HOST answers 500 Internal Server Error: disk\\u{1b}[2J full; come back"
    );
    assert_eq!(said("<html>", 502).await, "pulling oci://HOST/x:1: HOST answers 502 Bad Gateway");
    assert_eq!(said("later", 429).await, "pulling oci://HOST/x:1: HOST answers 429 Too Many Requests: later");
    let error = said("hello", 200).await;
    assert!(error.starts_with("pulling oci://HOST/x:1: the artifact has a manifest that cannot be read: "), "{error}");
}
