//! `twill backend push` and `twill backend pull`, against a real registry.

#[expect(dead_code, reason = "the registry of twill-oci's tests, which use all of it")]
#[path = "../oci/tests/registry/server.rs"]
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use server::{LOGIN, Options, Server};
use twill_sandbox::Digest;

/// What a command did.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A component that can be seen to be a backend, and does nothing: its only section names an export.
fn component() -> Vec<u8> {
    let name = b"twill:backend/planner@1.0.0";
    let export = [&[1, 0, u8::try_from(name.len()).unwrap()][..], name, &[5, 0, 0]].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &[11, u8::try_from(export.len()).unwrap()], &export].concat()
}

/// Runs `twill backend …` as somebody who has only this folder.
fn backend(home: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twill"));
    command.arg("backend").args(arguments).env_clear().env("HOME", home).env("PATH", home);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn there_and_back() {
    let Some(server) = Server::start("there_and_back", Options::default()) else { return };
    let (home, name) = (server.dir.path(), server.name("team/hop:1.0"));
    let (file, copy) = (server.path("hop.wasm").display().to_string(), server.path("copy.wasm").display().to_string());
    fs::write(&file, component()).unwrap();
    let pushed = backend(home, &["push", &file, &name]);
    assert_eq!(pushed.code, Some(0), "{}", pushed.err);
    let pinned = pushed.out.trim();
    assert!(pinned.starts_with(&format!("oci://{name}@sha256:")), "{pinned}");
    let (digest, size) = (Digest::of(&component()), component().len());
    assert_eq!(
        pushed.err,
        format!(
            "The component sha256:{digest}, {size} bytes, is there. In net-conf.json:\n  \"Backend\": {{\"Type\": \"hop\", \
             \"Component\": \"{pinned}\"}}\n"
        )
    );
    for reference in [name.as_str(), pinned] {
        let pulled = backend(home, &["pull", reference, "-o", &copy]);
        assert_eq!((pulled.code, pulled.out.trim()), (Some(0), pinned), "{}", pulled.err);
        assert_eq!(pulled.err, format!("The component sha256:{digest}, {size} bytes, is in {copy}.\n"));
        assert_eq!(fs::read(&copy).unwrap(), component());
        fs::remove_file(&copy).unwrap();
    }
    let looked = backend(home, &["pull", &name]);
    assert_eq!(looked.err, format!("The component sha256:{digest}, {size} bytes, came whole.\n"));
    // What is not there leaves no file.
    let missing = backend(home, &["pull", &server.name("team/hop:2.0"), "-o", &copy]);
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""));
    assert!(
        missing.err.starts_with(&format!("twill: pulling oci://{}: ", server.name("team/hop:2.0"))),
        "{}",
        missing.err
    );
    assert!(!Path::new(&copy).exists());
}

#[test]
fn what_is_no_backend_is_not_pushed() {
    let Some(server) = Server::start("what_is_no_backend_is_not_pushed", Options::default()) else { return };
    let (home, name, file) = (server.dir.path(), server.name("x:1"), server.path("x.wasm").display().to_string());
    for (bytes, why) in [
        (&b"\0asm\x01\0\0\0"[..], "is a core module, not a component"),
        (b"\0asm\x0d\0\x01\0", "should export twill:backend/planner@1 and exports nothing"),
        (b"\x1f\x8b\x08", "is packed with gzip"),
    ] {
        fs::write(&file, bytes).unwrap();
        let refused = backend(home, &["push", &file, &name]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(3), ""), "{}", refused.err);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    assert_eq!(server.raw("GET", "/v2/x/tags/list", "text/plain", b"").0, 404);
    let wrong = backend(home, &["push", &file, "x:1"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("\"x:1\" names no artifact: it has no name behind the registry"), "{}", wrong.err);
}

#[test]
fn a_login_from_a_credential_helper() {
    let options = Options { login: true, ..Options::default() };
    let Some(server) = Server::start("a_login_from_a_credential_helper", options) else { return };
    let (home, name, file) = (server.dir.path(), server.name("x:1"), server.path("x.wasm").display().to_string());
    fs::write(&file, component()).unwrap();
    let host = format!("127.0.0.1:{}", server.port);
    let helper = server.path("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = \"get {host}\" ] || {{ echo credentials not found in native keychain; exit \
         1; }}\necho '{{\"ServerURL\":\"\",\"Username\":\"{}\",\"Secret\":\"{}\"}}'\n",
        LOGIN.0, LOGIN.1
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(server.path(".docker")).unwrap();
    fs::write(server.path(".docker/config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let pushed = backend(home, &["push", &file, &name]);
    assert_eq!(pushed.code, Some(0), "{}", pushed.err);
    // Of another registry, it knows nothing.
    let other = backend(home, &["pull", &format!("localhost:{}/x:1", server.port)]);
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("asks for a login, and there is none for it in "), "{}", other.err);
    fs::write(server.path(".docker/config.json"), r#"{"credsStore":"missing"}"#).unwrap();
    let missing = backend(home, &["pull", &name]);
    let said = format!("asking docker-credential-missing for the credentials for {host}: No such file or directory");
    assert!(missing.err.contains(&said), "{}", missing.err);
}
