//! How Twill sets up wasmtime.
//!
//! Machine code fits only an engine with the settings it was compiled for. Three programs must therefore agree: the
//! build (which compiles the built-in backends ahead), the compiler process (which compiles everybody else's) and the
//! daemon (which only runs what they made). This crate is the one place where those settings stand.

use std::hash::{DefaultHasher, Hash, Hasher};

use wasmtime::{Config, Engine, OptLevel, Result};

/// The stack a guest may use, in bytes. Planning is loops over lists; the deepest thing in a guest is its JSON parser.
pub const GUEST_STACK: usize = 512 * 1024;

/// The code of a release must run on processors older than the one it was built on. So code is made for any processor of
/// its kind, not for the one at hand, which is what the compiler does unless it is told a target.
const TARGET: &str = match () {
    () if cfg!(target_arch = "x86_64") => "x86_64-unknown-linux-gnu",
    () if cfg!(target_arch = "aarch64") => "aarch64-unknown-linux-gnu",
    () => panic!("Twill runs on x86_64 and aarch64"),
};

/// What bounds a guest's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Metering {
    /// Processor time: what the daemon does.
    #[default]
    Time,
    /// Time, and beside it the guest's operations are counted. The count is the same on every machine and each time, and
    /// costs the guest some speed: for measuring, not for the daemon.
    Fuel,
}

/// An engine that compiles: for the build and for the compiler process, never for the daemon.
///
/// # Errors
/// When this machine cannot run the compiler for its own processor.
pub fn compiler() -> Result<Engine> {
    compiler_for(Metering::Time)
}

/// An engine that compiles for engines that measure so.
///
/// # Errors
/// When this machine cannot run the compiler for its own processor.
pub fn compiler_for(metering: Metering) -> Result<Engine> {
    Engine::new(settings(metering).target(TARGET)?)
}

/// A name for what an engine can run: code made under the same name fits.
#[must_use]
pub fn compatibility(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// An engine that only runs what a [`compiler`] made: for the daemon.
///
/// # Errors
/// When the processor or the kernel lacks what wasmtime needs.
pub fn runtime() -> Result<Engine> {
    runtime_for(Metering::Time)
}

/// An engine that only runs what a compiler for the same measure made.
///
/// # Errors
/// When the processor or the kernel lacks what wasmtime needs.
pub fn runtime_for(metering: Metering) -> Result<Engine> {
    Engine::new(settings(metering).enable_compiler(false))
}

/// Everything a guest does not need is off: what is not there cannot be attacked, and results are the same on every
/// machine (no relaxed SIMD, canonical NaN). More than one memory is for the code between the components that a component may
/// consist of, which copies from one's memory to the other's: what scripting languages make has such parts.
fn settings(metering: Metering) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(metering == Metering::Fuel)
        .max_wasm_stack(GUEST_STACK)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .wasm_component_model(true)
        .wasm_simd(false)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .wasm_tail_call(false);
    config
}
