//! Flags about registries: those of the daemon, and of the commands that pull and push.

use std::path::PathBuf;

use clap::Args;
use twill_oci::Access;

/// How registries are reached. A proxy is what HTTPS_PROXY and NO_PROXY say.
#[derive(Debug, Args)]
pub(super) struct RegistryArguments {
    /// Logins for registries, in the form of Docker's config.json; by default $DOCKER_CONFIG/config.json or ~/.docker/config.json.
    #[arg(long, value_name = "FILE", env = "TWILL_REGISTRY_CONFIG", help_heading = "Registries")]
    registry_config: Option<PathBuf>,
    /// Certificates (PEM) of authorities that registries are known by, beside those of the system.
    #[arg(long, value_name = "FILE", env = "TWILL_REGISTRY_CA", help_heading = "Registries")]
    registry_ca: Option<PathBuf>,
    /// A registry that is trusted without TLS. May be given again. On loopback, all are.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "TWILL_REGISTRY_PLAIN_HTTP",
        value_delimiter = ',',
        help_heading = "Registries"
    )]
    registry_plain_http: Vec<String>,
}

impl RegistryArguments {
    /// What they mean. Programs that the logins' file names are run only for a person.
    pub(super) fn access(self, helpers: bool) -> Access {
        let access = Access {
            config: self.registry_config,
            helpers,
            authorities: self.registry_ca,
            plain_http: self.registry_plain_http,
            ..Access::default()
        };
        access.with_proxy_of_environment()
    }
}
