//! Debian's `docker-registry`, a process for each test, on a port of its own.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;
use twill_oci::Access;

/// The name and password that [`Options::login`] asks for, and what a file of passwords holds for it: a well-known example of
/// bcrypt.
pub(crate) const LOGIN: (&str, &str) = ("ann", "U*U");
const HTPASSWD: &str = "ann:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";

/// A registry that runs until it is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
}

/// What a registry is to be like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Only for those with [`LOGIN`].
    pub(crate) login: bool,
    /// With a certificate of an authority of its own, for 127.0.0.1 and `registry.test`.
    pub(crate) tls: bool,
    /// Sends everybody who wants content to this address.
    pub(crate) redirect: Option<&'a str>,
}

/// The program, or a loud word.
pub(crate) fn program(test: &str) -> Option<PathBuf> {
    let named = env::var_os("TWILL_REGISTRY").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let found = named.into_iter().chain(env::split_paths(&path).map(|dir| dir.join("docker-registry")));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        // It goes around the capture of the test runner, which would hide it.
        let why = "there is no docker-registry; `cargo xtask test` fetches it, or TWILL_REGISTRY names it";
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    }
    found
}

impl Server {
    /// Starts one; None (and a loud word) where there is no program for it.
    pub(crate) fn start(test: &str, options: Options<'_>) -> Option<Self> {
        let program = program(test)?;
        // Somebody else may take the port before the registry does: then another one is tried.
        (0..5)
            .find_map(|_| Self::try_start(&program, options))
            .or_else(|| panic!("{test}: the registry does not start"))
    }

    fn try_start(program: &Path, options: Options<'_>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \
             127.0.0.1:{port}\n",
            at("storage")
        );
        if options.tls {
            certificates(dir.path());
            config += &format!("  tls: {{certificate: {}, key: {}}}\n", at("server.crt"), at("server.key"));
        }
        if options.login {
            fs::write(at("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: twill, path: {}}}}}\n", at("htpasswd"));
        }
        if let Some(address) = options.redirect {
            config += &format!("middleware: {{storage: [{{name: redirect, options: {{baseurl: \"{address}\"}}}}]}}\n");
        }
        fs::write(at("config.yml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = Command::new(program);
        command.args(["serve", &at("config.yml")]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: between fork and exec the closure only makes one system call; it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from));
        }
        let mut server = Self { process: command.spawn().unwrap(), dir, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{}", fs::read_to_string(server.path("log")).unwrap());
            thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// A file of its own: `log`, `ca.crt`, ….
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A name in it.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Sends a request by hand; returns the status and the whole answer.
    pub(crate) fn raw(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        (text[9..12].parse().unwrap(), text)
    }

    /// Puts content into a repository by hand.
    pub(crate) fn blob(&self, name: &str, content: &[u8]) {
        let (status, answer) = self.raw("POST", &format!("/v2/{name}/blobs/uploads/"), "text/plain", b"");
        assert_eq!(status, 202, "{answer}");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        let path = &location[location.find("/v2/").unwrap()..];
        let digest = twill_model::Digest::of(content);
        let (status, answer) =
            self.raw("PUT", &format!("{path}&digest=sha256:{digest}"), "application/octet-stream", content);
        assert_eq!(status, 201, "{answer}");
    }

    /// Puts a manifest there by hand.
    pub(crate) fn manifest(&self, name: &str, tag: &str, media_type: &str, manifest: &str) {
        let (status, answer) = self.raw("PUT", &format!("/v2/{name}/manifests/{tag}"), media_type, manifest.as_bytes());
        assert_eq!(status, 201, "{answer}");
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An access without any of the machine's own settings.
pub(crate) fn nobody(dir: &Path) -> Access {
    let file = dir.join("empty.json");
    fs::write(&file, "{}").unwrap();
    Access { config: Some(file), ..Access::default() }
}

/// An authority, and a certificate of it.
fn certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=twill-test-ca \
          -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry.test \
          -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:registry.test\\n' >extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile extensions \
          -out server.crt";
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
