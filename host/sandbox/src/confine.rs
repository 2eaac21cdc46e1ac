//! The compiler process, seen from inside.
//!
//! A compiler that reads hostile input is a large attack surface. So it runs in a process that has given away everything
//! but its standard streams: no rights, no files, no processes, bounded memory and time. What comes out of it is still
//! machine code that the daemon runs inside the guest's sandbox; that is why nobody but this program's own compiler,
//! started by the daemon itself, ever provides it.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, geteuid, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use twill_engine::Metering;

use crate::inspect::{MAX_COMPONENT, inspect};

/// The hidden subcommand: `twill compile-component < component > code`.
pub const COMPILER_COMMAND: &str = "compile-component";
/// The same for code that counts what it does.
pub const METERED_COMPILER_COMMAND: &str = "compile-component-metered";

/// Bytes of address space.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time.
const TIME: u64 = 60;
/// `nobody`.
const NOBODY: u32 = 65534;

/// What the daemon's `main` does, before anything else, when its first argument is [`COMPILER_COMMAND`] or
/// [`METERED_COMPILER_COMMAND`]: gives away all rights, reads a component from standard input and writes its code to standard output. On failure, one line on standard
/// error says why.
///
/// Must be called while the process has one thread.
#[must_use]
pub fn compiler_main() -> ExitCode {
    match confine().map_err(|e| format!("giving away rights: {e}")).and_then(|()| compile()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let mut wasm = Vec::new();
    let limit = MAX_COMPONENT as u64 + 1;
    io::stdin().lock().take(limit).read_to_end(&mut wasm).map_err(|e| format!("reading the component: {e}"))?;
    inspect(&wasm).map_err(|why| format!("it {why}"))?;
    let metering = match std::env::args_os().nth(1) {
        Some(command) if command == METERED_COMPILER_COMMAND => Metering::Fuel,
        _ => Metering::Time,
    };
    let engine = twill_engine::compiler_for(metering).map_err(|e| format!("setting up the compiler: {e:#}"))?;
    let code = engine.precompile_component(&wasm).map_err(|e| one_line(&format!("{e:#}")))?;
    io::stdout().lock().write_all(&code).map_err(|e| format!("handing over the code: {e}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Gives away everything that compiling does not need. What an unprivileged process cannot give away it does not have.
fn confine() -> io::Result<()> {
    for (resource, most) in [
        (Resource::As, MEMORY),
        (Resource::Cpu, TIME),
        (Resource::Nofile, 3),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        limit(resource, most)?;
    }
    set_no_new_privs(true)?;
    if geteuid().is_root() {
        become_nobody();
    }
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    limit(Resource::Nproc, 0)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Last, since a change of user takes it back. If the parent is gone already, standard input ends and so does this.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// At most this much, or what is the limit already if that is less.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |present| present.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Each step by itself, since a container or a user namespace may forbid some: without capabilities, which are taken
/// away afterwards in any case, root is a user as others are.
fn become_nobody() {
    for capability in CapabilitySet::all().iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let _ = set_thread_groups(&[]);
    let _ = set_thread_res_gid(gid, gid, gid);
    let _ = set_thread_res_uid(uid, uid, uid);
}
