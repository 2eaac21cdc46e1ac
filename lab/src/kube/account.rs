//! The ServiceAccount that the daemons have.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::control_plane::ControlPlane;
use super::pki::{base64url, sign};
use crate::error::{LabError, Result};

/// A ServiceAccount, by namespace and name.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
}

impl Account {
    /// The one that ships.
    pub const SHIPPED: Account = Account { namespace: "kube-flannel", name: "flannel" };

    /// One that nothing is granted to.
    pub const POWERLESS: Account = Account { namespace: "kube-flannel", name: "powerless" };

    /// Where pods find it. A lab has a `/run` of its own, to which this leads.
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

    pub(super) const ISSUER: &str = "https://kubernetes.default.svc";

    /// Its name as a user.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// A token, as a pod gets it: from the server. A server that makes none (see [`super::KubePrograms::is_complete`])
    /// knows one by heart.
    pub fn token(&self, control_plane: &ControlPlane) -> Result<String> {
        if !control_plane.programs.is_complete() {
            return Ok(self.static_token());
        }
        let token = control_plane.kubectl().run(&["create", "token", self.name, "--namespace", self.namespace])?;
        Ok(token.trim().to_string())
    }

    /// Writes what a pod finds below `/var/run/secrets`, as the kubelet does: replacing each file in one step.
    pub fn mount(&self, control_plane: &ControlPlane, token: &str) -> Result<()> {
        let dir = Path::new(Self::MOUNT);
        fs::create_dir_all(dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let authority = control_plane.certificate_authority();
        let authority =
            fs::read_to_string(&authority).map_err(LabError::system(format!("read {}", authority.display())))?;
        for (name, content) in [("ca.crt", authority.as_str()), ("namespace", self.namespace), ("token", token)] {
            let (file, new) = (dir.join(name), dir.join(format!(".{name}.new")));
            fs::write(&new, content)
                .and_then(|()| fs::rename(&new, &file))
                .map_err(LabError::system(format!("write {}", file.display())))?;
        }
        Ok(())
    }

    /// A token that ends at a moment of our choice, signed with the server's own key: the server's shortest is ten minutes.
    pub fn token_until(&self, control_plane: &ControlPlane, end: SystemTime) -> Result<String> {
        let account = control_plane.kubectl().json(&["get", "serviceaccount", self.name, "-n", self.namespace])?;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let issued = seconds(SystemTime::now() - Duration::from_secs(3600));
        let claims = json!({
            "iss": Self::ISSUER,
            "aud": [Self::ISSUER],
            "sub": self.user(),
            "iat": issued,
            "nbf": issued,
            "exp": seconds(end),
            "kubernetes.io": {
                "namespace": self.namespace,
                "serviceaccount": { "name": self.name, "uid": account["metadata"]["uid"] },
            },
        });
        let head = base64url(&json!({ "alg": "RS256", "typ": "JWT" }).to_string())?;
        let signed = format!("{head}.{}", base64url(&claims.to_string())?);
        Ok(format!("{signed}.{}", sign(&control_plane.authority.accounts_key(), &signed)?))
    }

    fn static_token(&self) -> String {
        format!("static-token-of-{}-{}", self.namespace, self.name)
    }

    /// The file of tokens that the server knows by heart.
    pub(super) fn static_tokens(control_plane: &ControlPlane) -> PathBuf {
        control_plane.dir().join("tokens.csv")
    }

    pub(super) fn write_static_tokens(control_plane: &ControlPlane) -> Result<()> {
        let file = Self::static_tokens(control_plane);
        let line = |account: Account| {
            let groups = format!("system:serviceaccounts,system:serviceaccounts:{}", account.namespace);
            format!("{},{},{},\"{groups}\"\n", account.static_token(), account.user(), account.name)
        };
        let text: String = [Self::SHIPPED, Self::POWERLESS].map(line).concat();
        fs::write(&file, text).map_err(LabError::system(format!("write {}", file.display())))
    }
}
