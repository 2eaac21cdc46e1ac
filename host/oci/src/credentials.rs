//! Names and passwords, from the file that `docker login` and others write, and that a pull secret of Kubernetes holds.
//!
//! The file may leave passwords to other programs, credential helpers. They are run only where a person runs a command: a
//! daemon with rights over the machine's network executes nothing that a file names.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use serde::Deserialize;

use super::reference::Repository;

/// Larger files are none that anybody's login wrote.
const MAX_FILE: u64 = 1 << 20;
/// What helpers call a token that is no password.
const TOKEN_USER: &str = "<token>";
/// What helpers say of a server that they do not know.
const UNKNOWN_TO_HELPER: &str = "credentials not found";
/// Names of Docker's own registry, and the one under which logins to it are kept.
const DOCKER: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Who somebody is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password, or a token that serves as one.
        password: String,
    },
    /// A token that other tokens are given for.
    Identity(String),
    /// A token that the registry takes as it is.
    Token(String),
}

/// Why there are none, although there should be.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file.
    #[error("reading the registries' credentials {file}: {problem}; name another file with --registry-config", file = file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A program has them.
    #[error(
        "the credentials for {registry} are with the program docker-credential-{helper} ({file}), which is not run here: put them into a \
         file of their own, as a pull secret of Kubernetes holds them, and name it with --registry-config",
        file = file.display()
    )]
    Helper {
        /// Of which registry.
        registry: String,
        /// The end of the program's name.
        helper: String,
        /// Where it is named.
        file: PathBuf,
    },
    /// The program failed.
    #[error("asking docker-credential-{helper} for the credentials for {registry}: {problem}; log in again, or correct {file}", file = file.display())]
    HelperFailed {
        /// The end of the program's name.
        helper: String,
        /// Of which registry.
        registry: String,
        /// What it said.
        problem: String,
        /// Where it is named.
        file: PathBuf,
    },
}

/// Where to look for credentials.
#[derive(Debug, Clone)]
pub(crate) struct Keyring<'a> {
    /// A file in the form of Docker's `config.json`; none: where that usually is.
    pub(crate) file: Option<&'a Path>,
    /// Whether programs that the file names may be run.
    pub(crate) helpers: bool,
}

/// Docker's file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// What it holds for a server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// As the header `Authorization` has them, if the registry takes them without anything else.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { user, password } => format!("Basic {}", BASE64.encode(format!("{user}:{password}"))),
            Self::Token(token) => format!("Bearer {token}"),
            Self::Identity(_) => return None,
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
fn usual_file() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = dir("DOCKER_CONFIG").or_else(|| Some(dir("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

impl Keyring<'_> {
    /// The credentials for a repository, if there are any.
    pub(crate) fn find(&self, repository: &Repository) -> Result<Option<Credentials>, CredentialsError> {
        let Some(file) = self.file.map(Path::to_owned).or_else(usual_file) else { return Ok(None) };
        let wrong = |problem: String| CredentialsError::File { file: file.clone(), problem };
        let mut bytes = Vec::new();
        match File::open(&file).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
            // Nobody logged in. A file that was named has to be there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.file.is_none() => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
            Ok(size) if size as u64 > MAX_FILE => return Err(wrong(format!("it has more than {MAX_FILE} bytes"))),
            Ok(_) => {}
        }
        // The position, and not the text, which may be a secret.
        let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!(
                "it is not in the form of Docker's config.json (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        let registry = repository.registry();
        let named = config.cred_helpers.iter().find(|(key, _)| is_same(key, registry)).map(|(_, helper)| helper);
        if let (Some(helper), true) = (named, self.helpers) {
            return ask(helper, registry, &file);
        }
        if let Some(entry) = config.entry(repository)
            && let Some(found) = entry.read().map_err(wrong)?
        {
            return Ok(Some(found));
        }
        match named.or(config.creds_store.as_ref()).filter(|helper| !helper.is_empty()) {
            None => Ok(None),
            Some(helper) if self.helpers => ask(helper, registry, &file),
            Some(helper) => {
                Err(CredentialsError::Helper { registry: registry.to_owned(), helper: helper.clone(), file })
            }
        }
    }

    /// What people are told of where credentials are looked for.
    pub(crate) fn place(&self) -> String {
        let file = self.file.map(Path::to_owned).or_else(usual_file);
        file.map_or_else(|| "~/.docker/config.json".to_owned(), |file| file.display().to_string())
    }
}

impl DockerConfig {
    /// The entry with the longest path that the repository is below.
    fn entry(&self, repository: &Repository) -> Option<&Entry> {
        let mut fitting: Vec<(usize, &Entry)> = self
            .auths
            .iter()
            .filter_map(|(key, entry)| {
                let (host, path) = host_and_path(key);
                let name = repository.name();
                let is_above = path.is_empty()
                    || name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                (is_same(host, repository.registry()) && is_above).then_some((path.len(), entry))
            })
            .collect();
        fitting.sort_by_key(|(length, _)| *length);
        fitting.pop().map(|(_, entry)| entry)
    }
}

impl Entry {
    fn read(&self) -> Result<Option<Credentials>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credentials::Token(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let wrong = || "an \"auth\" in it is not the Base64 of NAME:PASSWORD".to_owned();
            let text =
                BASE64.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
            let (user, password) = text.split_once(':').ok_or_else(wrong)?;
            return Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }));
        }
        let pair = given(&self.username).zip(given(&self.password));
        Ok(pair.map(|(user, password)| Credentials::Basic { user, password }))
    }
}

/// Whether a key means this registry.
fn is_same(key: &str, registry: &str) -> bool {
    let (host, _) = host_and_path(key);
    host.eq_ignore_ascii_case(registry) || (DOCKER.contains(&host) && DOCKER.contains(&registry))
}

/// Keys are hosts, hosts with a path, or addresses of an API.
fn host_and_path(key: &str) -> (&str, &str) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

/// Runs a credential helper.
fn ask(helper: &str, registry: &str, file: &Path) -> Result<Option<Credentials>, CredentialsError> {
    let failed = |problem: String| CredentialsError::HelperFailed {
        helper: helper.to_owned(),
        registry: registry.to_owned(),
        problem,
        file: file.to_owned(),
    };
    if helper.contains(['/', '\0']) {
        return Err(failed("its name is a path".to_owned()));
    }
    let server = if DOCKER.contains(&registry) { "https://index.docker.io/v1/" } else { registry };
    let system = |error: io::Error| failed(error.to_string());
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(system)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says by itself what is wrong.
        let _ = writeln!(stdin, "{server}");
    }
    let output = child.wait_with_output().map_err(system)?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let is_unknown = said.trim_start().starts_with(UNKNOWN_TO_HELPER);
        return if is_unknown { Ok(None) } else { Err(failed(super::artifact::shown(said.trim()))) };
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not JSON".to_owned()))?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Basic { user: answer.username, password: answer.secret }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn find(config: &Value, reference: &str) -> Result<Option<Credentials>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let reference: crate::Reference = reference.parse().unwrap();
        let found = Keyring { file: Some(&file), helpers: false }.find(&reference.repository);
        found.map_err(|error| error.to_string().replace(&file.display().to_string(), "FILE"))
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn entries_of_logins_and_pull_secrets() {
        let auths = json!({"auths": {
            "r.example:5000": {"auth": BASE64.encode("ann:p:w")},
            "https://r.example:5000/v2/": {},
            "r.example:5000/team": {"username": "bob", "password": "secret", "auth": ""},
            "https://index.docker.io/v1/": {"identitytoken": "id"},
            "t.example": {"registrytoken": "tok"}
        }});
        assert_eq!(find(&auths, "r.example:5000/team/x"), Ok(basic("bob", "secret")));
        assert_eq!(find(&auths, "docker.io/library/x"), Ok(Some(Credentials::Identity("id".into()))));
        assert_eq!(find(&auths, "t.example/x"), Ok(Some(Credentials::Token("tok".into()))));
        assert_eq!(find(&auths, "r.example/x"), Ok(None));
        let one = json!({"auths": {"r.example:5000": {"auth": BASE64.encode("ann:p:w")}}});
        assert_eq!(find(&one, "r.example:5000/teams/x"), Ok(basic("ann", "p:w")));
        assert_eq!(find(&json!({}), "r.example/x"), Ok(None));
    }

    #[test]
    fn helpers_are_not_run_by_a_daemon() {
        let said = "the credentials for r.example are with the program docker-credential-pass (FILE), which is not run \
                    here: put them into a file of their own, as a pull secret of Kubernetes holds them, and name it with \
                    --registry-config";
        for config in
            [json!({"credsStore": "pass", "auths": {"r.example": {}}}), json!({"credHelpers": {"r.example": "pass"}})]
        {
            assert_eq!(find(&config, "r.example/x"), Err(said.into()));
        }
        let other = json!({"credHelpers": {"other.example": "pass"}});
        assert_eq!(find(&other, "r.example/x"), Ok(None));
        let both = json!({"credsStore": "pass", "auths": {"r.example": {"auth": BASE64.encode("a:b")}}});
        assert_eq!(find(&both, "r.example/x"), Ok(basic("a", "b")));
    }

    #[test]
    fn files_that_cannot_be_used() {
        assert_eq!(
            find(&json!({"auths": {"r.example": {"auth": "geheim"}}}), "r.example/x"),
            Err(
                "reading the registries' credentials FILE: an \"auth\" in it is not the Base64 of NAME:PASSWORD; name \
                 another file with --registry-config"
                    .into()
            )
        );
        assert_eq!(
            find(&json!({"auths": ["geheim"]}), "r.example/x"),
            Err("reading the registries' credentials FILE: it is not in the form of Docker's config.json (line 1, column \
                 9); name another file with --registry-config"
                .into())
        );
        let reference: crate::Reference = "r.example/x".parse().unwrap();
        let missing = Keyring { file: Some(Path::new("/nonexistent/config.json")), helpers: false };
        let error = missing.find(&reference.repository).unwrap_err().to_string();
        assert!(
            error.starts_with("reading the registries' credentials /nonexistent/config.json: No such file"),
            "{error}"
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = basic("ann", "hidden").unwrap();
        assert_eq!(format!("{secret:?} {:?}", secret.header()), "(secret) Some(Sensitive)");
    }
}
