//! Files that tell a client where the server is and who the client is.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Who a client says it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A certificate and its key.
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// Its key's file.
        key: PathBuf,
    },
    /// A token, in the file itself.
    Token(String),
    /// A token in a file of its own, which may be replaced.
    TokenFile(PathBuf),
    /// Nobody.
    Anonymous,
}

/// The content of such a file. JSON, which is YAML too.
pub(super) fn kubeconfig(server: &str, authority: &Path, credentials: &Credentials) -> Value {
    let user = match credentials {
        Credentials::Certificate { certificate, key } => {
            json!({ "client-certificate": certificate, "client-key": key })
        }
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::TokenFile(file) => json!({ "tokenFile": file }),
        Credentials::Anonymous => json!({}),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "lab", "user": user }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        "current-context": "lab",
    })
}
