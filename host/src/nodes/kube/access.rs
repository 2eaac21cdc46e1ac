//! How the daemon reaches the API server, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);
/// Where a pod finds the token of its ServiceAccount.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the flags say of the API server. Nothing given means: as a pod of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `--kube-api-url`; goes before the server of the kubeconfig.
    pub api_url: Option<String>,
    /// `--kubeconfig-file`.
    pub kubeconfig: Option<PathBuf>,
}

/// Why it is not known whom to ask.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig.
    #[error("reading the kubeconfig {file}: {error}; correct --kubeconfig-file", file = file.display())]
    Kubeconfig {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The address.
    #[error(
        "--kube-api-url {url:?} is not an address of an API server: {problem}; expected one as \"https://192.0.2.1:6443\""
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Not in a pod.
    #[error(
        "no way to the API server: {error}; outside of a pod, give --kubeconfig-file (or --kube-api-url, for a server that asks for no \
         credentials)"
    )]
    NotInCluster {
        /// What is missing.
        error: String,
    },
    /// Keys and certificates.
    #[error(
        "preparing the connection to the API server {url}: {error}; check the certificates and keys of the kubeconfig or the pod"
    )]
    Client {
        /// Which server.
        url: String,
        /// What is wrong.
        error: String,
    },
}

impl Access {
    /// Reads addresses, keys and tokens, and makes a client of them. Connects to nobody.
    ///
    /// # Errors
    /// If something of it is missing or makes no sense.
    pub(super) async fn client(&self) -> Result<Client, AccessError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        let url = config.cluster_url.to_string();
        Client::try_from(config).map_err(|error| AccessError::Client { url, error: causes(&error) })
    }

    async fn config(&self) -> Result<Config, AccessError> {
        let url = self.api_url.as_ref().map(|url| address(url)).transpose()?;
        let mut config = match (&self.kubeconfig, &url) {
            (Some(file), _) => from_file(file).await?,
            (None, Some(url)) if !Path::new(SERVICE_ACCOUNT).join("token").exists() => Config::new(url.clone()),
            (None, Some(url)) => in_cluster(url)?,
            (None, None) => Config::incluster().map_err(|error| AccessError::NotInCluster { error: causes(&error) })?,
        };
        if let Some(url) = url {
            config.cluster_url = url;
        }
        Ok(config)
    }

    /// What people call the server in a message.
    pub(super) fn server(&self) -> String {
        match (&self.api_url, &self.kubeconfig) {
            (Some(url), _) => format!("the API server {url} (--kube-api-url)"),
            (None, Some(file)) => format!("the API server of {}", file.display()),
            (None, None) => "the API server of this cluster".to_owned(),
        }
    }
}

/// The pod's own token and certificates, but another address than the Service's: so the daemon needs no Service to work.
fn in_cluster(url: &http::Uri) -> Result<Config, AccessError> {
    let file = |name: &str| Path::new(SERVICE_ACCOUNT).join(name);
    let mut config = Config::new(url.clone());
    config.root_cert_file = Some(file("ca.crt")).filter(|file| file.exists());
    config.auth_info.token_file = Some(file("token").display().to_string());
    Ok(config)
}

async fn from_file(file: &Path) -> Result<Config, AccessError> {
    let failed = |error| AccessError::Kubeconfig { file: file.to_owned(), error };
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| failed(causes(&error)))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| failed(causes(&error)))
}

fn address(text: &str) -> Result<http::Uri, AccessError> {
    let failed = |problem: &str| AccessError::Url { url: text.to_owned(), problem: problem.to_owned() };
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: http::Uri = with_scheme.parse().map_err(|error: http::uri::InvalidUri| failed(&error.to_string()))?;
    match url.scheme_str() {
        Some("http" | "https") if url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        Some("http" | "https") => Err(failed("it names no host")),
        _ => Err(failed("it begins neither with http:// nor with https://")),
    }
}

/// An error with its causes: libraries often keep the useful part for the end.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, read) in [
            ("https://192.0.2.1:6443", "https://192.0.2.1:6443/"),
            ("http://127.0.0.1:8001/", "http://127.0.0.1:8001/"),
            ("https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443/"),
            ("192.0.2.1:8080", "http://192.0.2.1:8080/"),
            ("https://api.example.org", "https://api.example.org/"),
        ] {
            assert_eq!(address(given).unwrap().to_string(), read);
        }
        for (given, problem) in [
            ("ftp://x", "it begins neither with http:// nor with https://"),
            ("https://", "empty string"),
            ("https://a b", "invalid uri character"),
        ] {
            assert_eq!(
                address(given).unwrap_err().to_string(),
                format!(
                    "--kube-api-url {given:?} is not an address of an API server: {problem}; expected one as \
                     \"https://192.0.2.1:6443\""
                )
            );
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there() {
        let access = Access { kubeconfig: Some("/nonexistent/kubeconfig".into()), api_url: None };
        let said = access.client().await.map(|_| ()).unwrap_err().to_string();
        assert!(said.starts_with("reading the kubeconfig /nonexistent/kubeconfig: "), "{said}");
        assert!(said.contains("No such file or directory") && said.ends_with("; correct --kubeconfig-file"), "{said}");
    }
}
