//! Pulling from and pushing to a real registry, Debian's `docker-registry`, and to servers that are not as they should be.

mod access;
mod front;
mod refusals;
mod server;

use std::collections::BTreeMap;

use twill_model::Digest;
use twill_oci::{Access, Error, Interface, Pinned, Pulled, Push, Reference, pull, push};

use front::{Front, Reply};
use server::{Options, Server, nobody};

/// What stands for a component: nobody looks into it here.
const COMPONENT: &[u8] = b"\0asm and so on";
/// The largest that is pulled.
const LIMIT: u64 = 1 << 20;

fn interface() -> Interface {
    Interface { exports: vec!["twill:backend/planner@1.0.0".into()], imports: vec!["wasi:io/poll@0.2.6".into()] }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn pulled(access: &Access, name: &str) -> Result<Pulled, Error> {
    pull(&reference(name), access, LIMIT, &|_| Ok(())).await
}

async fn refused(access: &Access, name: &str) -> String {
    pulled(access, name).await.unwrap_err().to_string()
}

async fn pushed(access: &Access, name: &str, component: &[u8]) -> Result<Pinned, Error> {
    let push_of = Push { component, interface: interface(), title: Some("x.wasm"), annotations: BTreeMap::new() };
    push(&reference(name), access, push_of).await
}

#[tokio::test]
async fn what_was_pushed_is_pulled() {
    let Some(server) = Server::start("what_was_pushed_is_pulled", Options::default()) else { return };
    let access = nobody(server.dir.path());
    let pinned = pushed(&access, &server.name("team/backend:1.0"), COMPONENT).await.unwrap();
    for name in [server.name("team/backend:1.0"), pinned.to_string()] {
        let got = pulled(&access, &name).await.unwrap();
        assert_eq!((got.component.as_slice(), got.digest), (COMPONENT, Digest::of(COMPONENT)));
        assert_eq!(got.reference.digest, pinned.digest);
        assert_eq!(Digest::of(&got.manifest), pinned.digest);
        assert_eq!(twill_oci::component_of(&got.manifest, LIMIT), Ok(got.digest));
    }
    // The same again is the same; something else under that tag changes the tag, and not what is pinned.
    assert_eq!(pushed(&access, &server.name("team/backend:1.0"), COMPONENT).await.unwrap(), pinned);
    let other = pushed(&access, &server.name("team/backend:1.0"), b"\0asm other").await.unwrap();
    assert_ne!(other.digest, pinned.digest);
    assert_eq!(pulled(&access, &pinned.to_string()).await.unwrap().component, COMPONENT);
    assert_eq!(pulled(&access, &server.name("team/backend:1.0")).await.unwrap().component, b"\0asm other");
    // Without a tag there is nothing but the digest.
    let bare = pushed(&access, &server.name("team/bare"), COMPONENT).await.unwrap();
    assert_eq!(pulled(&access, &bare.to_string()).await.unwrap().component, COMPONENT);
    assert_eq!(bare.digest, pinned.digest);
}

#[tokio::test]
async fn what_others_write_is_pulled() {
    let Some(server) = Server::start("what_others_write_is_pulled", Options::default()) else { return };
    let access = nobody(server.dir.path());
    server.blob("other", COMPONENT);
    server.blob("other", b"{}");
    let (component, empty) = (Digest::of(COMPONENT), Digest::of(b"{}"));
    // A plain tool that puts a file there, and an earlier writer.
    for (tag, layer, config) in [
        ("plain", "application/wasm", "application/vnd.oci.empty.v1+json"),
        ("earlier", "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.wasm.config.v1+json"),
    ] {
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/wasm",
            "config":{{"mediaType":"{config}","digest":"sha256:{empty}","size":2,"data":"e30="}},
            "layers":[{{"mediaType":"{layer}","digest":"sha256:{component}","size":{}}}]}}"#,
            COMPONENT.len()
        );
        server.manifest("other", tag, "application/vnd.oci.image.manifest.v1+json", &manifest);
        let got = pulled(&access, &server.name(&format!("other:{tag}"))).await.unwrap();
        assert_eq!(got.component, COMPONENT);
        assert_eq!(got.reference.digest, Digest::of(manifest.as_bytes()));
    }
}

#[tokio::test]
async fn a_registry_that_is_down() {
    let access = nobody(tempfile::tempdir().unwrap().path());
    let port = server::free_port();
    let access = Access { config: None, ..access };
    assert_eq!(
        refused(&access, &format!("127.0.0.1:{port}/x:1")).await,
        format!(
            "pulling oci://127.0.0.1:{port}/x:1: 127.0.0.1:{port} cannot be reached: tcp connect error: Connection refused \
             (os error 111); check the name and port, and what lies between (HTTPS_PROXY and NO_PROXY too)"
        )
    );
    assert_eq!(
        refused(&access, "127.0.0.1:1/x").await,
        "pulling oci://127.0.0.1:1/x: it has neither a tag nor a digest; add one, as :1.0 or @sha256:…"
    );
    let error = refused(&access, "registry.invalid/x:1").await;
    assert!(
        error.starts_with("pulling oci://registry.invalid/x:1: registry.invalid cannot be reached: dns error: "),
        "{error}"
    );
}

#[tokio::test]
async fn something_that_is_not_there() {
    let Some(server) = Server::start("something_that_is_not_there", Options::default()) else { return };
    let access = nobody(server.dir.path());
    pushed(&access, &server.name("x:1"), COMPONENT).await.unwrap();
    let nothing = Digest::of(b"nothing");
    for name in ["x:2".to_owned(), "y:1".to_owned(), format!("x@sha256:{nothing}")] {
        let name = server.name(&name);
        assert_eq!(
            refused(&access, &name).await,
            format!("pulling oci://{name}: 127.0.0.1:{} does not have it; correct the name, or push it", server.port)
        );
    }
}

#[tokio::test]
async fn content_is_fetched_where_the_registry_says() {
    let test = "content_is_fetched_where_the_registry_says";
    let Some(store) = Server::start(test, Options { login: true, ..Options::default() }) else { return };
    let port = store.port;
    // Whoever is sent here is not asked for a name; and none is to be told.
    let elsewhere = Front::start(|_| Reply::Answer(200, vec![], COMPONENT.to_vec()));
    let (there, component) = (elsewhere.port, Digest::of(COMPONENT));
    let registry = Front::start(move |asked| {
        if asked.method == "GET" && asked.path.ends_with(&format!("/blobs/sha256:{component}")) {
            let location = format!("http://127.0.0.1:{there}/bucket/object?signature=1");
            return Reply::Answer(307, vec![("Location", location)], vec![]);
        }
        Reply::Forward(port)
    });
    let access = access::ann(store.dir.path(), &format!("127.0.0.1:{}", registry.port));
    pushed(&access, &registry.name("x:1"), COMPONENT).await.unwrap();
    assert_eq!(pulled(&access, &registry.name("x:1")).await.unwrap().component, COMPONENT);
    let asked: Vec<_> = elsewhere.seen().into_iter().filter(|asked| asked.path.starts_with("/bucket")).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/bucket/object?signature=1");
    assert_eq!(asked[0].header("authorization"), None);
    assert!(registry.seen().iter().any(|asked| asked.header("authorization").is_some()));
}

#[tokio::test]
async fn redirects_that_lead_nowhere() {
    let around = Front::start(|asked| Reply::Answer(302, vec![("Location", format!("{}/again", asked.path))], vec![]));
    let access = Access::default();
    let (name, port) = (around.name("x:1"), around.port);
    assert_eq!(
        refused(&access, &name).await,
        format!("pulling oci://{name}: 127.0.0.1:{port} redirects more than 5 times")
    );
    for (location, why) in [
        (Some("http://192.0.2.1/x"), "to 192.0.2.1, without TLS"),
        (Some("file:///etc/passwd"), "to \"file:///etc/passwd\", which is no address"),
        (Some("http://ann:secret@127.0.0.1/"), "to \"http://ann:secret@127.0.0.1/\", which is no address"),
        (None, "without saying where"),
    ] {
        let headers: Vec<_> = location.map(|location| ("Location", location.to_owned())).into_iter().collect();
        let front = Front::start(move |_| Reply::Answer(302, headers.clone(), vec![]));
        let (name, port) = (front.name("x:1"), front.port);
        assert_eq!(refused(&access, &name).await, format!("pulling oci://{name}: 127.0.0.1:{port} redirects {why}"));
    }
}
