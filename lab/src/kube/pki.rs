//! Certificates: one authority for the server's and for those of its clients. The work is openssl's.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::netns::Output;

/// The authority, and the folder of everything it signed.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn create(dir: PathBuf) -> Result<Authority> {
        fs::create_dir_all(&dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let authority = Authority { dir };
        authority.key("ca.key")?;
        authority.openssl(
            "req -x509 -new -key ca.key -sha256 -days 30 -subj /CN=twill-lab -out ca.crt \
             -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        )?;
        // Tokens of service accounts are signed by a key of their own.
        authority.openssl("genrsa -out accounts.key 2048")?;
        Ok(authority)
    }

    /// The authority's own certificate, by which clients know the server.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The key that signs tokens of service accounts.
    pub(super) fn accounts_key(&self) -> PathBuf {
        self.dir.join("accounts.key")
    }

    /// A certificate for a server at these addresses.
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> Result<Certificate> {
        let names: String = addresses.iter().map(|address| format!("IP:{address},")).collect();
        let names = format!("{names}DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc");
        self.sign("server", "/CN=kube-apiserver", &format!("extendedKeyUsage=serverAuth\nsubjectAltName={names}\n"))
    }

    /// A certificate for a user in some groups.
    pub(super) fn client(&self, user: &str, groups: &[&str]) -> Result<Certificate> {
        let groups: String = groups.iter().map(|group| format!("/O={group}")).collect();
        let file = format!("user-{}", user.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        self.sign(&file, &format!("{groups}/CN={user}"), "extendedKeyUsage=clientAuth\n")
    }

    fn sign(&self, name: &str, subject: &str, extensions: &str) -> Result<Certificate> {
        let file = self.dir.join(format!("{name}.ext"));
        fs::write(&file, format!("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n{extensions}"))
            .map_err(LabError::system(format!("write {}", file.display())))?;
        self.key(&format!("{name}.key"))?;
        self.openssl(&format!("req -new -key {name}.key -subj {subject} -out {name}.csr"))?;
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 -days 30 -extfile {name}.ext \
             -out {name}.crt"
        ))?;
        let path = |ending: &str| self.dir.join(format!("{name}.{ending}"));
        Ok(Certificate { certificate: path("crt"), key: path("key") })
    }

    fn key(&self, name: &str) -> Result<()> {
        // In PKCS#8, which every TLS library reads.
        self.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}"))
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        run(Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.dir), None).map(drop)
    }
}

/// Signs text with an RSA key and returns the signature as base64url, as tokens have it.
pub(super) fn sign(key: &Path, text: &str) -> Result<String> {
    let (input, output) = (key.with_extension("text"), key.with_extension("signature"));
    fs::write(&input, text).map_err(LabError::system(format!("write {}", input.display())))?;
    run(
        Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg("-out").arg(&output).arg(&input),
        None,
    )?;
    run(Command::new("openssl").args(["base64", "-A", "-in"]).arg(&output), None).map(|text| url_safe(&text))
}

/// Base64url without padding.
pub(super) fn base64url(text: &str) -> Result<String> {
    run(Command::new("openssl").args(["base64", "-A"]), Some(text)).map(|text| url_safe(&text))
}

fn url_safe(base64: &str) -> String {
    base64.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let shown: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|w| w.to_string_lossy().into()).collect();
    let output = Output::of(command, "the lab", input)?;
    output.check(&shown.iter().map(String::as_str).collect::<Vec<_>>(), "the lab")?;
    Ok(output.stdout)
}
