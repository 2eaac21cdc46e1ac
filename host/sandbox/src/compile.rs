//! The compiler process, seen from the daemon.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;
use twill_engine::Metering;

use crate::confine::{COMPILER_COMMAND, METERED_COMPILER_COMMAND};
use crate::log::printable;

/// The compiler's time by the clock, on however busy a machine. It waits for nothing but the processor, of which it may have
/// 60 s (see `confine.rs`).
const TIME: Duration = Duration::from_secs(600);
/// Bytes of code. A component of 18 MiB makes 32.
pub(crate) const MAX_CODE: usize = 256 << 20;
/// Bytes of what the compiler has to say.
const MAX_MESSAGE: usize = 4096;

/// Why a component has no code. Reads on after "this file".
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The process could not be run at all.
    #[error("was not compiled: the compiler process could not be run: {0}")]
    Process(#[from] io::Error),
    /// The compiler refused it.
    #[error("does not compile: {0}")]
    Refused(String),
    /// The process died.
    #[error(
        "does not compile: the compiler died from signal {0}; it may take 1 GiB of memory and 60 s of processor time"
    )]
    Died(i32),
    /// It took too long.
    #[error("does not compile within {} s", TIME.as_secs())]
    TimedOut,
    /// It makes too much code.
    #[error("makes more than {} MiB of code", MAX_CODE >> 20)]
    TooMuchCode,
}

/// Compiles a component in a process of its own: `exe compile-component`, where `exe` is the program that calls
/// [`compiler_main`](crate::compiler_main).
///
/// # Errors
/// When the component does not compile, or the process cannot be run.
pub async fn compile(exe: &Path, metering: Metering, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    timeout(TIME, run(exe, metering, wasm)).await.map_err(|_| CompileError::TimedOut)?
}

async fn run(exe: &Path, metering: Metering, wasm: &[u8]) -> Result<Vec<u8>, CompileError> {
    let mut child = Command::new(exe)
        .arg(match metering {
            Metering::Time => COMPILER_COMMAND,
            Metering::Fuel => METERED_COMPILER_COMMAND,
        })
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // A compiler that refuses early closes its input; what it says then counts, not that writing failed.
    let write = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(wasm).await;
        }
    };
    let ((), code, message) = tokio::join!(write, read(stdout, MAX_CODE), read(stderr, MAX_MESSAGE));
    let (code, message) = (code?, message?);
    if code.len() > MAX_CODE {
        return Err(CompileError::TooMuchCode);
    }
    verdict(child.wait().await?, &String::from_utf8_lossy(&message))?;
    Ok(code)
}

/// All there is to read, or one byte more than `most`.
async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn verdict(status: ExitStatus, message: &str) -> Result<(), CompileError> {
    match status.signal() {
        Some(signal) => Err(CompileError::Died(signal)),
        None if status.success() => Ok(()),
        None => Err(CompileError::Refused(printable(message.trim()))),
    }
}
