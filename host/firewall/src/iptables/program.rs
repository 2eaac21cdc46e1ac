//! The programs of iptables.

use std::collections::HashMap;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use twill_model::Family;

use super::Variant;
use crate::error::Error;

/// So long a program waits for the lock of the old iptables.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// So long a program may run. With ten thousands of rules on a busy machine it takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lock of the old iptables, if the environment names no other.
const LOCK: &str = "/run/xtables.lock";
/// Of what a program says, so much is passed on.
const SAID_CHARS: usize = 300;

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Program {
    /// Lists everything.
    Save,
    /// Writes.
    Restore,
}

impl Program {
    fn word(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Restore => "restore",
        }
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// Where programs were found. Asking one what it is costs a process, so that is done once.
#[derive(Debug, Default)]
pub(super) struct Programs(HashMap<(Family, Variant, Program), PathBuf>);

impl Programs {
    /// The program of a variant: `iptables-nft-save`, or `iptables-save` where that is the same.
    pub(super) async fn find(&mut self, family: Family, variant: Variant, program: Program) -> Result<PathBuf, Error> {
        let key = (family, variant, program);
        if let Some(path) = self.0.get(&key).filter(|path| path.is_file()) {
            return Ok(path.clone());
        }
        let exact = format!("{}-{variant}-{}", name(family), program.word());
        let path = match in_path(&exact) {
            Some(path) => path,
            None => match in_path(&format!("{}-{}", name(family), program.word())) {
                Some(path) if version(family).await? == variant => path,
                _ => return Err(missing(&exact, family)),
            },
        };
        self.0.insert(key, path.clone());
        Ok(path)
    }
}

/// Which variant the program `iptables` is.
pub(super) async fn version(family: Family) -> Result<Variant, Error> {
    let name = name(family);
    let Some(path) = in_path(name) else { return Err(missing(name, family)) };
    let mut command = Command::new(&path);
    command.arg("--version");
    let (said, _) = finish(command, &path, family, None).await?;
    Ok(if said.contains("(nf_tables)") { Variant::Nft } else { Variant::Legacy })
}

/// Runs a program to its end and returns what it wrote to standard output.
pub(super) async fn run(
    program: &Path,
    family: Family,
    variant: Variant,
    input: Option<&str>,
) -> Result<String, Error> {
    let mut command = Command::new(program);
    if input.is_some() {
        command.arg("--noflush").arg(format!("--wait={}", LOCK_PATIENCE.as_secs()));
    }
    match finish(command, program, family, input).await? {
        (out, None) => Ok(out),
        (_, Some((_, said))) if variant == Variant::Legacy && said.contains("xtables lock") => {
            let lock = env::var("XTABLES_LOCKFILE").unwrap_or_else(|_| LOCK.to_owned());
            Err(Error::Locked { lock, seconds: LOCK_PATIENCE.as_secs(), family })
        }
        (_, Some((status, said))) => {
            Err(Error::Refused { program: program.display().to_string(), family, status, said })
        }
    }
}

/// Standard output; and, if it failed, how it ended and standard error.
async fn finish(
    mut command: Command,
    program: &Path,
    family: Family,
    input: Option<&str>,
) -> Result<(String, Option<(String, String)>), Error> {
    let failed = |error| Error::Run { program: program.display().to_string(), family, error };
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ending = async {
        let mut child = command.spawn()?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            // A program that does not read to the end says why on standard error.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(PATIENCE, ending).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => {
            let what = format!("it did not end within {} seconds", PATIENCE.as_secs());
            return Err(failed(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
    };
    let failure = (!output.status.success()).then(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.split_whitespace().collect();
        (output.status.to_string(), said.join(" ").chars().take(SAID_CHARS).collect())
    });
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), failure))
}

fn missing(program: &str, family: Family) -> Error {
    Error::NoProgram { program: program.to_owned(), path: env::var("PATH").unwrap_or_default(), family }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
