//! What can go wrong in a call, told apart.

use twill_model::Failure;
use wasmtime::Trap;

use crate::guest::{Exited, State};

/// How a guest was stopped. Reads on after "the backend".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It panicked or did what WebAssembly forbids.
    #[error("stopped itself ({0})")]
    Trapped(String),
    /// It wanted more memory than it may have.
    #[error("wanted more than {0} MiB of memory")]
    OutOfMemory(usize),
    /// It called too deep.
    #[error("used more than {} KiB of stack", twill_engine::GUEST_STACK >> 10)]
    OutOfStack,
    /// It did not answer in time; milliseconds of processor time.
    #[error("did not answer within {0} ms")]
    TimedOut(u128),
    /// It handed over more than the host takes.
    #[error("wanted to hand over more than {} MiB of data", crate::guest::MAX_DATA >> 20)]
    TooMuchData,
    /// It called `exit`.
    #[error("ended itself with exit code {0}")]
    Exited(u8),
}

impl Fault {
    pub(crate) fn of(error: &wasmtime::Error, state: &State, allowed: std::time::Duration) -> Self {
        if state.out_of_memory() {
            return Self::OutOfMemory(state.memory_limit() >> 20);
        }
        if let Some(Exited(code)) = error.downcast_ref() {
            return Self::Exited(*code);
        }
        let root = error.root_cause().to_string();
        if root.contains("fuel allocated for hostcalls has been exhausted") {
            return Self::TooMuchData;
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::TimedOut(allowed.as_millis()),
            Some(Trap::StackOverflow) => Self::OutOfStack,
            _ => Self::Trapped(match state.last_words() {
                "" => root,
                words => format!("{root}: {words}"),
            }),
        }
    }
}

/// Why a call gave no answer at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The backend says that it cannot.
    #[error("the backend says: {0}")]
    Failed(Failure),
    /// The backend was stopped.
    #[error("the backend {0}")]
    Fault(Fault),
    /// The backend answered about more or fewer peers than it was asked about.
    #[error("the backend gave {got} verdicts for {asked} peers")]
    WrongLength {
        /// Peers in the question.
        asked: usize,
        /// Verdicts in the answer.
        got: usize,
    },
    /// The backend answered what the contract does not allow.
    #[error("the backend's answer is not allowed: {0}")]
    Violation(String),
    /// A mistake in Twill, not in the backend.
    #[error("the sandbox failed in this call, a mistake in Twill; its log says where")]
    Sandbox,
}
