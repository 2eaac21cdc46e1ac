//! One call's surroundings: the bindings of `wit/backend.wit`, and what a guest's store holds.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Engine, ResourceLimiter, Result, Store, bail};

use crate::log::{GuestLog, printable};
use crate::wasi;
use crate::worker::Surroundings;

pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "backend",
    });
}

use bindings::twill::backend::log::Level;

/// Bytes that a guest may hand over in one call or one line.
pub(crate) const MAX_DATA: usize = 4 << 20;
/// Handles to streams and the like that a guest may hold.
const MAX_HANDLES: usize = 256;
/// Core instances, tables, memories and table elements inside one component. Scripting engines consist of a dozen
/// modules and put every function into a table.
const MAX_INSTANCES: usize = 64;
const MAX_TABLES: usize = 32;
const MAX_MEMORIES: usize = 8;
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// What the functions that a guest imports work on. Lives as long as one call.
pub(crate) struct State {
    log: Arc<GuestLog>,
    random: u64,
    clock: Duration,
    memory_limit: usize,
    memory_used: usize,
    out_of_memory: bool,
    unfinished_line: Vec<u8>,
    last_words: String,
}

/// The guest called `exit`.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub(crate) struct Exited(pub(crate) u8);

/// Everything that a guest may import.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    bindings::Backend::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// A fresh store for one call.
pub(crate) fn store(
    engine: &Engine,
    log: Arc<GuestLog>,
    seed: &[u8; 32],
    surroundings: Surroundings,
    memory_limit: usize,
) -> Store<State> {
    let [a, b, c, d, e, f, g, h, ..] = *seed;
    let state = State {
        log,
        random: u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ surroundings.random,
        clock: surroundings.clock,
        memory_limit,
        memory_used: 0,
        out_of_memory: false,
        unfinished_line: Vec::new(),
        last_words: String::new(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(MAX_DATA);
    store.set_max_component_handles(MAX_HANDLES);
    store
}

impl State {
    pub(crate) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    pub(crate) fn memory_limit(&self) -> usize {
        self.memory_limit
    }

    /// Bytes of memory that the guest has.
    pub(crate) fn memory_used(&self) -> usize {
        self.memory_used
    }

    /// What every clock says.
    pub(crate) fn clock(&self) -> Duration {
        self.clock
    }

    /// What the guest wrote to stderr, mostly the reason of a panic.
    pub(crate) fn last_words(&self) -> &str {
        &self.last_words
    }

    /// The next number of a sequence that is the same for every call on this node (SplitMix64). No guest needs more: the
    /// keys and addresses that must be secret or unique come from the host.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Takes what a guest writes to stdout or stderr, and logs it line by line.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.unfinished_line.len() < 4096 {
                self.unfinished_line.push(byte);
            }
        }
    }

    /// Ends a line that has no end of its own.
    pub(crate) fn end_line(&mut self) {
        let line = mem::take(&mut self.unfinished_line);
        let line = printable(String::from_utf8_lossy(&line).trim());
        if line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        if self.last_words.len() + line.len() < 400 {
            if !self.last_words.is_empty() {
                self.last_words.push(' ');
            }
            self.last_words.push_str(&line);
        }
        self.log.emit(tracing::Level::WARN, &line);
    }
}

impl bindings::twill::backend::types::Host for State {}

impl bindings::twill::backend::log::Host for State {
    fn emit(&mut self, level: Level, message: String) {
        let level = match level {
            Level::Debug => tracing::Level::DEBUG,
            Level::Info => tracing::Level::INFO,
            Level::Warn => tracing::Level::WARN,
            Level::Error => tracing::Level::ERROR,
        };
        self.log.emit(level, &message);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let used = self.memory_used.saturating_add(desired.saturating_sub(current));
        if used > self.memory_limit {
            self.out_of_memory = true;
            bail!("out of memory");
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            bail!("a table of {desired} elements, {MAX_TABLE_ELEMENTS} at the most");
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::StoreContextMut;
    use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, Lower};

    use super::bindings::twill::backend::log::Host;
    use super::bindings::twill::backend::types as wit;
    use super::*;
    use crate::Digest;

    /// Built for `twill:backend@1.0.0`; its source is beside it.
    const GOLDEN: &[u8] = include_bytes!("../tests/golden/direct-1.0.0.wasm");

    /// Everything that a guest may import from a host of 1.1.0, as that could be: one more function in an interface that there
    /// is, and one more interface.
    fn later_linker(engine: &Engine) -> Linker<State> {
        let mut linker = Linker::new(engine);
        wasi::add_to_linker(&mut linker).unwrap();
        linker.instance("twill:backend/types@1.1.0").unwrap();
        let mut log = linker.instance("twill:backend/log@1.1.0").unwrap();
        log.func_wrap("emit", |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
            store.data_mut().last_words.clone_from(&message);
            store.data_mut().emit(level, message);
            Ok(())
        })
        .unwrap();
        log.func_wrap("enabled", |_: StoreContextMut<'_, State>, (_,): (Level,)| Ok((true,))).unwrap();
        let mut clock = linker.instance("twill:backend/clock@1.1.0").unwrap();
        clock.func_wrap("now", |_: StoreContextMut<'_, State>, (): ()| Ok((0_u64,))).unwrap();
        linker
    }

    /// Calls a function of the planner, by the name that a host of 1.1.0 knows it by.
    fn call<P, R>(store: &mut Store<State>, instance: &Instance, name: &str, arguments: P) -> R
    where
        P: ComponentNamedList + Lower,
        (R,): ComponentNamedList + Lift,
    {
        let planner = instance.get_export_index(&mut *store, None, "twill:backend/planner@1.1.0").unwrap();
        let function = instance.get_export_index(&mut *store, Some(&planner), name).unwrap();
        let function = instance.get_typed_func::<P, (R,)>(&mut *store, &function).unwrap();
        function.call(&mut *store, arguments).unwrap().0
    }

    #[test]
    fn what_was_built_for_1_0_runs_on_a_host_of_1_1() {
        let engine = twill_engine::compiler().unwrap();
        let component = Component::new(&engine, GOLDEN).unwrap();
        let log = Arc::new(GuestLog::new("direct", &Digest::of(GOLDEN)));
        let mut store = store(&engine, log, &[7; 32], Surroundings::default(), 32 << 20);
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = later_linker(&engine).instantiate(&mut store, &component).unwrap();

        let descriptor: wit::Descriptor = call(&mut store, &instance, "describe", ());
        assert_eq!((descriptor.name.as_str(), descriptor.version.as_str()), ("direct", "1.0.0"));

        let node = wit::Node {
            name: "alpha".into(),
            config: String::new(),
            uplink: wit::Uplink { name: "eth0".into(), mtu: 1500 },
            families: Vec::new(),
            link_prefix: "flannel".into(),
            existing_links: Vec::new(),
            seed: vec![7; 32],
            wireguard_key: None,
            features: Vec::new(),
        };
        let plan: std::result::Result<wit::NodePlan, wit::Failure> = call(&mut store, &instance, "plan-node", (&node,));
        assert_eq!(plan.unwrap().pod_mtu, 1500);
        assert_eq!(store.data().last_words(), "alpha has 0 families", "what it logged came through");

        let peer = wit::Peer { name: "beta".into(), backend: "direct".into(), families: Vec::new() };
        let verdicts: std::result::Result<Vec<wit::Verdict>, wit::Failure> =
            call(&mut store, &instance, "plan-peers", (&node, &[peer][..]));
        assert!(matches!(&verdicts.unwrap()[..], [wit::Verdict::Plan(intents)] if intents.is_empty()));
    }
}
