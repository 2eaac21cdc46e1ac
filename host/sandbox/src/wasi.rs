//! WASI with nothing behind it.
//!
//! A backend needs no operating system, but the runtime library of its language asks for one at start: for arguments, for
//! standard streams, for a seed. Here these questions are answered as on a machine where there is nothing: no arguments, no
//! environment, the end of input, clocks that stand still, and numbers that look random and are the same each time. What a
//! guest writes goes to the log. So an answer can depend on nothing but the question.
//!
//! The interfaces hold handles, but no handle has a state. So a handle's number says what it is, and there is no table
//! that a guest could fill.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime::{Result, bail};

use crate::guest::{Exited, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "closed",
        imports: { default: trappable },
        with: {
            "wasi:io/error.error": super::handle::Failure,
            "wasi:io/poll.pollable": super::handle::Moment,
            "wasi:io/streams.input-stream": super::handle::Input,
            "wasi:io/streams.output-stream": super::handle::Output,
            "wasi:cli/terminal-input.terminal-input": super::handle::Terminal,
            "wasi:cli/terminal-output.terminal-output": super::handle::Terminal,
        },
    });
}

use bindings::wasi::clocks::wall_clock::Datetime;
use bindings::wasi::io::streams::StreamError;
use bindings::wasi::{cli, clocks, io, random};

/// Kinds of handles.
#[expect(unreachable_pub, reason = "the generated bindings re-export them")]
mod handle {
    /// An error of a stream. There are none: streams only end.
    pub struct Failure;
    /// Something to wait for. It has always come.
    pub struct Moment;
    /// Standard input. It is at its end.
    pub struct Input;
    /// Standard output or error: the log.
    pub struct Output;
    /// Nobody has one.
    pub struct Terminal;
}

use handle::{Failure, Input, Moment, Output, Terminal};

/// The one handle of each kind.
const ONLY: u32 = 1;
/// Bytes that can be written at once, and random bytes that can be had at once.
const PIECE: u64 = 64 << 10;

pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    bindings::Closed::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

type Streamed<T> = Result<Result<T, StreamError>>;

impl io::error::Host for State {}

impl io::error::HostError for State {
    fn to_debug_string(&mut self, _: Resource<Failure>) -> Result<String> {
        Ok(String::new())
    }

    fn drop(&mut self, _: Resource<Failure>) -> Result<()> {
        Ok(())
    }
}

impl io::poll::Host for State {
    fn poll(&mut self, moments: Vec<Resource<Moment>>) -> Result<Vec<u32>> {
        if moments.is_empty() {
            bail!("poll of an empty list");
        }
        Ok((0..).take(moments.len()).collect())
    }
}

impl io::poll::HostPollable for State {
    fn ready(&mut self, _: Resource<Moment>) -> Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<Moment>) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, _: Resource<Moment>) -> Result<()> {
        Ok(())
    }
}

impl io::streams::Host for State {}

impl io::streams::HostInputStream for State {
    fn read(&mut self, _: Resource<Input>, _: u64) -> Streamed<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_read(&mut self, _: Resource<Input>, _: u64) -> Streamed<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn skip(&mut self, _: Resource<Input>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_skip(&mut self, _: Resource<Input>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn subscribe(&mut self, _: Resource<Input>) -> Result<Resource<Moment>> {
        Ok(Resource::new_own(ONLY))
    }

    fn drop(&mut self, _: Resource<Input>) -> Result<()> {
        Ok(())
    }
}

impl io::streams::HostOutputStream for State {
    fn check_write(&mut self, _: Resource<Output>) -> Streamed<u64> {
        Ok(Ok(PIECE))
    }

    fn write(&mut self, _: Resource<Output>, contents: Vec<u8>) -> Streamed<()> {
        State::write(self, &contents);
        Ok(Ok(()))
    }

    fn blocking_write_and_flush(&mut self, _: Resource<Output>, contents: Vec<u8>) -> Streamed<()> {
        State::write(self, &contents);
        Ok(Ok(()))
    }

    fn flush(&mut self, _: Resource<Output>) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn blocking_flush(&mut self, _: Resource<Output>) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn subscribe(&mut self, _: Resource<Output>) -> Result<Resource<Moment>> {
        Ok(Resource::new_own(ONLY))
    }

    fn write_zeroes(&mut self, _: Resource<Output>, _: u64) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<Output>, _: u64) -> Streamed<()> {
        Ok(Ok(()))
    }

    fn splice(&mut self, _: Resource<Output>, _: Resource<Input>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_splice(&mut self, _: Resource<Output>, _: Resource<Input>, _: u64) -> Streamed<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn drop(&mut self, _: Resource<Output>) -> Result<()> {
        Ok(())
    }
}

impl cli::environment::Host for State {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for State {
    fn exit(&mut self, status: Result<(), ()>) -> Result<()> {
        Err(Exited(status.is_err().into()).into())
    }

    fn exit_with_code(&mut self, status_code: u8) -> Result<()> {
        Err(Exited(status_code).into())
    }
}

impl cli::stdin::Host for State {
    fn get_stdin(&mut self) -> Result<Resource<Input>> {
        Ok(Resource::new_own(ONLY))
    }
}

impl cli::stdout::Host for State {
    fn get_stdout(&mut self) -> Result<Resource<Output>> {
        Ok(Resource::new_own(ONLY))
    }
}

impl cli::stderr::Host for State {
    fn get_stderr(&mut self) -> Result<Resource<Output>> {
        Ok(Resource::new_own(ONLY))
    }
}

impl cli::terminal_input::Host for State {}

impl cli::terminal_input::HostTerminalInput for State {
    fn drop(&mut self, _: Resource<Terminal>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_output::Host for State {}

impl cli::terminal_output::HostTerminalOutput for State {
    fn drop(&mut self, _: Resource<Terminal>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_stdin::Host for State {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for State {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for State {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}

impl clocks::wall_clock::Host for State {
    fn now(&mut self) -> Result<Datetime> {
        let clock = self.clock();
        Ok(Datetime { seconds: clock.as_secs(), nanoseconds: clock.subsec_nanos() })
    }

    fn resolution(&mut self) -> Result<Datetime> {
        Ok(Datetime { seconds: 1, nanoseconds: 0 })
    }
}

impl clocks::monotonic_clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.clock().as_nanos()).unwrap_or(u64::MAX))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, _: u64) -> Result<Resource<Moment>> {
        Ok(Resource::new_own(ONLY))
    }

    fn subscribe_duration(&mut self, _: u64) -> Result<Resource<Moment>> {
        Ok(Resource::new_own(ONLY))
    }
}

impl random::random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > PIECE {
            bail!("{len} random bytes at once, {PIECE} at the most");
        }
        Ok((0..len).map(|_| self.random() as u8).collect())
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(self.random())
    }
}

impl random::insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        random::random::Host::get_random_bytes(self, len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(self.random())
    }
}

impl random::insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.random(), self.random()))
    }
}
