//! Finding and running the delegate: another CNI plugin, spoken to as a runtime would.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::config::Object;
use crate::{Attachment, Error, Request, Verb};

/// A program that is being installed by writing into it cannot be run for a moment (`ETXTBSY`).
const BUSY_RETRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The version of flannel's own conflist, which any plugin in use speaks.
const UNIVERSAL_VERSION: &str = "0.3.1";

/// A plugin that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    program: PathBuf,
}

impl Delegate {
    /// The plugin that a configuration is for, by its `type`.
    pub fn of(config: &Object, request: &Request) -> Result<Delegate, Error> {
        Delegate::find(kind(config).unwrap_or_default(), &request.path)
    }

    /// The first regular file called `name` in the directories of `path`.
    pub fn find(name: &str, path: &str) -> Result<Delegate, Error> {
        let missing = || Error::DelegateMissing { name: name.to_owned(), path: path.to_owned() };
        if name.is_empty() || name.contains('/') {
            return Err(missing());
        }
        let candidates = path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name));
        let program = candidates.into_iter().find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file()));
        Ok(Delegate { program: program.ok_or_else(missing)? })
    }

    /// Runs the plugin for the attachment that our own caller named: the environment is inherited but for the verb.
    pub fn run(&self, verb: Verb, config: &Object) -> Result<Vec<u8>, Error> {
        self.call(verb, config, Command::new(&self.program))
    }

    /// Has the plugin detach the attachment that our own caller named.
    pub fn del(&self, config: &Object) -> Result<(), Error> {
        self.del_in_any_version(config, || Command::new(&self.program))
    }

    /// Has the plugin detach what is left of an attachment whose namespace is gone.
    pub fn release(&self, attachment: &Attachment, config: &Object) -> Result<(), Error> {
        self.del_in_any_version(config, || {
            let mut command = Command::new(&self.program);
            command.env("CNI_CONTAINERID", attachment.container()).env("CNI_IFNAME", attachment.ifname());
            command.env_remove("CNI_NETNS").env_remove("CNI_ARGS");
            command
        })
    }

    // A DEL has no result, so the version means nothing for it. A plugin (or its IPAM plugin) that is too old for the
    // version given can still clean up; otherwise a network with such a plugin would have pods that cannot be removed.
    fn del_in_any_version(&self, config: &Object, command: impl Fn() -> Command) -> Result<(), Error> {
        let mut done = self.call(Verb::Del, config, command());
        if matches!(done, Err(Error::Delegate { code: 1, .. })) {
            let mut older = config.clone();
            older.insert("cniVersion".into(), UNIVERSAL_VERSION.into());
            done = self.call(Verb::Del, &older, command()).or(done);
        }
        done.map(drop)
    }

    /// Runs ADD; success means that there is a result.
    pub fn add(&self, config: &Object) -> Result<Vec<u8>, Error> {
        let stdout = self.run(Verb::Add, config)?;
        if serde_json::from_slice::<Object>(&stdout).is_err() {
            let said = readable(&stdout);
            return Err(Error::DelegateNoResult { program: self.program.clone(), verb: Verb::Add, said });
        }
        Ok(stdout)
    }

    /// Runs a verb that an older plugin need not know; not to know it is success.
    pub fn run_if_known(&self, verb: Verb, config: &Object) -> Result<(), Error> {
        match self.run(verb, config) {
            // 1: not this version of the protocol. 4: not this CNI_COMMAND. 3: older libraries ask for a container first,
            // which these verbs do not have.
            Ok(_) | Err(Error::Delegate { code: 1 | 3 | 4, .. }) => Ok(()),
            Err(Error::DelegateUntyped { .. }) if !self.speaks_version_of(config) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn speaks_version_of(&self, config: &Object) -> bool {
        let Ok(answer) = self.run(Verb::Version, config) else { return false };
        let answer: Object = serde_json::from_slice(&answer).unwrap_or_default();
        let versions = answer.get("supportedVersions").and_then(Value::as_array);
        versions.is_some_and(|versions| versions.iter().any(|version| Some(version) == config.get("cniVersion")))
    }

    fn call(&self, verb: Verb, config: &Object, mut command: Command) -> Result<Vec<u8>, Error> {
        command.env("CNI_COMMAND", verb.as_str());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawn_error = |source| Error::DelegateSpawn { program: self.program.clone(), verb, source };
        let input = Value::Object(config.clone()).to_string();
        let child = spawn(&mut command).map_err(spawn_error)?;
        let output = converse(child, input.as_bytes()).map_err(spawn_error)?;
        let _ = io::stderr().write_all(&output.stderr);
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(verb, output)) }
    }

    fn failure(&self, verb: Verb, output: Output) -> Error {
        if let Ok(answer) = serde_json::from_slice::<Object>(&output.stdout)
            && let Some(code) = answer.get("code").and_then(Value::as_u64)
        {
            let message = answer.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned();
            return Error::Delegate { code, message, answer: output.stdout };
        }
        let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        let said = if said.is_empty() { "it said nothing".to_owned() } else { readable(said) };
        Error::DelegateUntyped { program: self.program.clone(), verb, status: output.status, said }
    }
}

/// The plugin's name in a delegate configuration.
pub fn kind(config: &Object) -> Option<&str> {
    config.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty())
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut retries = BUSY_RETRIES;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && retries > 0 => {
                retries -= 1;
                thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

// The input is written beside the reading, so that neither side can wait for the other with a full pipe. A plugin that
// does not read its input may have its reasons; its exit code tells.
fn converse(mut child: Child, input: &[u8]) -> io::Result<Output> {
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    })
}

fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_regular_file_of_the_path_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |sub: &str| dir.path().join(sub);
        for sub in ["a", "b", "c"] {
            fs::create_dir(at(sub)).unwrap();
        }
        fs::create_dir(at("a/bridge")).unwrap();
        fs::write(at("b/bridge"), "").unwrap();
        fs::write(at("c/bridge"), "").unwrap();
        let path = format!(":/nowhere:{}:{}:{}", at("a").display(), at("b").display(), at("c").display());
        assert_eq!(Delegate::find("bridge", &path).unwrap().program, at("b/bridge"));
        for name in ["", "ptp", "../b/bridge", "/bin/sh", "..", "."] {
            assert_eq!(Delegate::find(name, &path).unwrap_err().code(), 999, "{name}");
        }
    }
}
