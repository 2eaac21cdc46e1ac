//! Calling the plugin.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// One call: an environment that holds nothing but what is said here, and `PATH`.
pub(crate) struct Call {
    command: Command,
    config: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Call {
    pub(crate) fn new(verb: &str) -> Call {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twill-cni"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("CNI_COMMAND", verb);
        Call { command, config: Vec::new() }
    }

    /// A call about one attachment.
    pub(crate) fn about(verb: &str, container: &str, ifname: &str) -> Call {
        Call::new(verb).env("CNI_CONTAINERID", container).env("CNI_IFNAME", ifname)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    pub(crate) fn arg(mut self, arg: &str) -> Call {
        self.command.arg(arg);
        self
    }

    pub(crate) fn config(mut self, config: &Value) -> Call {
        self.config = config.to_string().into_bytes();
        self
    }

    pub(crate) fn text(mut self, config: &str) -> Call {
        self.config = config.as_bytes().to_vec();
        self
    }

    pub(crate) fn run(mut self) -> Answer {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the plugin starts");
        // VERSION and calls that fail early do not read it.
        let _ = child.stdin.take().expect("piped").write_all(&self.config);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("the plugin ends");
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        Answer { code: status.code().expect("no signal"), stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Answer {
    /// Success without a result, as all verbs but ADD and VERSION have it.
    #[track_caller]
    pub(crate) fn done(&self) {
        assert_eq!((self.code, self.stdout.as_str()), (0, ""), "{self:?}");
    }

    /// Success with a result.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A failure with an error result of this code; returns its message and details.
    #[track_caller]
    pub(crate) fn error(&self, code: u64) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(error["code"], code, "{self:?}");
        format!("{} {}", error["msg"].as_str().expect("msg"), error["details"].as_str().unwrap_or_default())
    }
}

/// The names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
