//! One call of a plugin, and its answer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::network::Network;
use super::stage::{Container, Host, Implementation};
use crate::error::{LabError, Result};
use crate::netns::Output;

/// A call that is being put together. The environment holds what is said here, and `PATH`.
#[derive(Debug, Clone)]
#[must_use = "nothing is called until `run`"]
pub struct Call<'a> {
    host: &'a Host,
    implementation: Option<Implementation>,
    program: PathBuf,
    wrapper: Vec<OsString>,
    env: BTreeMap<String, OsString>,
    input: Input,
}

#[derive(Debug, Clone)]
enum Input {
    Config(Value),
    Text(String),
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was called, for messages.
    pub what: String,
    /// How it ended.
    pub output: Output,
}

impl<'a> Call<'a> {
    pub(super) fn general(host: &'a Host, implementation: Implementation, verb: &str) -> Call<'a> {
        let program = match implementation {
            Implementation::Ours | Implementation::Executing => host.path("bin/flannel"),
            Implementation::Reference => host.plugins.reference.join("bridge"),
        };
        let input = Input::Config(Value::Null);
        let path = format!("{}:{}", host.path("bin").display(), host.plugins.reference.display());
        let call = Call {
            host,
            implementation: Some(implementation),
            program,
            wrapper: Vec::new(),
            env: BTreeMap::new(),
            input,
        };
        call.env("CNI_COMMAND", verb).env("CNI_PATH", path).network(&host.network)
    }

    pub(super) fn attach(
        host: &'a Host,
        implementation: Implementation,
        verb: &str,
        container: &Container,
    ) -> Call<'a> {
        Call::general(host, implementation, verb).container(container)
    }

    pub(super) fn chained(host: &'a Host, plugin: &str, entry: &Value, verb: &str, container: &Container) -> Call<'a> {
        let call = Call::attach(host, Implementation::Reference, verb, container);
        let mut config = entry.clone();
        config["type"] = json!(plugin);
        config["name"] = json!(host.network.name);
        config["cniVersion"] = json!(host.network.version);
        let program = host.plugins.reference.join(plugin);
        Call { implementation: None, program, input: Input::Config(config), ..call }
    }

    fn container(self, container: &Container) -> Call<'a> {
        let call = self.env("CNI_CONTAINERID", &container.id).env("CNI_NETNS", container.ns.path());
        call.ifname("eth0")
    }

    /// Another network than the host's. Comes before [`Self::config`].
    pub fn network(self, network: &Network) -> Call<'a> {
        let (state, addresses) = (self.host.state_dir(), self.host.pools_dir());
        let mut config = match self.implementation {
            Some(Implementation::Reference) => network.completed(&addresses),
            _ => network.entry(&self.host.subnet_file(), &state, &addresses),
        };
        if self.implementation == Some(Implementation::Executing) {
            config["delegateExec"] = json!(true);
        }
        Call { input: Input::Config(config), ..self }
    }

    /// Another interface name.
    pub fn ifname(self, name: &str) -> Call<'a> {
        self.env("CNI_IFNAME", name)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Call<'a> {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Takes a variable away.
    pub fn without(mut self, name: &str) -> Call<'a> {
        self.env.remove(name);
        self
    }

    /// Sets `CNI_ARGS`.
    pub fn args(self, args: &str) -> Call<'a> {
        self.env("CNI_ARGS", args)
    }

    /// Sets a key of the configuration.
    pub fn key(self, key: &str, value: Value) -> Call<'a> {
        self.config(|config| config[key] = value)
    }

    /// Sets `runtimeConfig`.
    pub fn runtime_config(self, value: Value) -> Call<'a> {
        self.key("runtimeConfig", value)
    }

    /// Sets `prevResult`.
    pub fn previous(self, result: &Value) -> Call<'a> {
        self.key("prevResult", result.clone())
    }

    /// Sets the list of what lives, for GC.
    pub fn valid(self, attachments: &[(&str, &str)]) -> Call<'a> {
        let list = attachments.iter().map(|(id, ifname)| json!({ "containerID": id, "ifname": ifname })).collect();
        self.key("cni.dev/valid-attachments", list)
    }

    /// Changes the configuration.
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Call<'a> {
        if let Input::Config(config) = &mut self.input {
            change(config);
        }
        self
    }

    /// Gives any text instead of a configuration.
    pub fn text(self, text: &str) -> Call<'a> {
        Call { input: Input::Text(text.into()), ..self }
    }

    /// Runs the plugin through another program: `strace`, with its arguments.
    pub fn through<S: Into<OsString>>(self, wrapper: impl IntoIterator<Item = S>) -> Call<'a> {
        Call { wrapper: wrapper.into_iter().map(Into::into).collect(), ..self }
    }

    /// The command and what it reads from standard input. It has to be started in the host's namespace.
    pub fn command(&self) -> (Command, String) {
        let mut words = self.wrapper.iter().cloned().chain([self.program.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear().envs(&self.env);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let input = match &self.input {
            Input::Config(config) => config.to_string(),
            Input::Text(text) => text.clone(),
        };
        (command, input)
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Answer> {
        let (mut command, input) = self.command();
        let output = self.host.ns.exec_with(&mut command, &input)?;
        Ok(Answer { what: self.describe(), output })
    }

    fn describe(&self) -> String {
        let name = |key: &str| self.env.get(key).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        let words = [&program, &*name("CNI_COMMAND"), &name("CNI_CONTAINERID"), &name("CNI_IFNAME")];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Answer {
    /// Success without a result, as all verbs but ADD and VERSION have it.
    pub fn done(&self) -> Result<()> {
        if self.output.ok && self.output.stdout.is_empty() {
            Ok(())
        } else {
            Err(self.unexpected("success and silence"))
        }
    }

    /// Success with a result.
    pub fn result(&self) -> Result<Value> {
        if !self.output.ok {
            return Err(self.unexpected("success"));
        }
        let what = format!("the result of {}", self.what);
        serde_json::from_str(&self.output.stdout).map_err(LabError::json(what, &self.output.stdout))
    }

    /// A failure in the protocol's words: its code, and message and details in one text.
    pub fn error(&self) -> Result<(u64, String)> {
        let error: Value = serde_json::from_str(&self.output.stdout).unwrap_or_default();
        match (self.output.code, error["code"].as_u64()) {
            (Some(1), Some(code)) => {
                let text = |key: &str| error[key].as_str().unwrap_or_default().to_string();
                let (message, details) = (text("msg"), text("details"));
                Ok((code, if details.is_empty() { message } else { format!("{message} ({details})") }))
            }
            _ => Err(self.unexpected("an error result and exit code 1")),
        }
    }

    fn unexpected(&self, wanted: &str) -> LabError {
        let Output { status, stdout, stderr, .. } = &self.output;
        LabError::Command {
            command: self.what.clone(),
            place: format!("the stage (wanted was {wanted})"),
            status: status.clone(),
            output: format!("{stdout} {stderr}").trim().into(),
        }
    }
}
