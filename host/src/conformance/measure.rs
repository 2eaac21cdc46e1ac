//! What backends cost, side by side.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use twill_sandbox::{CallError, Metering, Options, Sandbox, SetupError};

use super::budget::{THOUSAND, short};
use super::good;
use crate::workshop::bench::Bench;
use crate::workshop::component::{Component, NoBackend, bytes};

/// How often each figure is taken; the best counts, since what disturbs only ever adds.
const TIMES: usize = 7;

/// What one backend costs.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Its file.
    pub component: String,
    /// Its digest, with the name of the hash before it.
    pub digest: String,
    /// Bytes of the component.
    pub size: usize,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Milliseconds that compiling took, in a process of its own; once.
    pub compile_ms: f64,
    /// Milliseconds that loading the code takes.
    pub load_ms: f64,
    /// Milliseconds that a node's plan takes.
    pub node_ms: f64,
    /// Milliseconds that the plans of a thousand peers take.
    pub thousand_peers_ms: f64,
    /// Operations for the same; the same on every machine.
    pub thousand_peers_fuel: u64,
    /// Bytes of memory of the largest call.
    pub memory: usize,
    /// The cluster that it planned for, in words.
    pub cluster: String,
}

/// Backends side by side.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Comparison(pub Vec<Measured>);

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It is no backend.
    #[error(transparent)]
    NoBackend(#[from] Box<NoBackend>),
    /// It has no plan for ordinary nodes.
    #[error("{component} cannot be measured: {seen}; {advice}")]
    NoPlan {
        /// Its file.
        component: String,
        /// What happened.
        seen: String,
        /// What to do.
        advice: String,
    },
    /// A call failed.
    #[error("{component} cannot be measured: {error}; `twill backend check` says more")]
    Call {
        /// Its file.
        component: String,
        /// What happened.
        error: CallError,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SetupError),
}

impl Measured {
    /// Measures a backend with a type and a configuration.
    ///
    /// # Errors
    /// When it is none, or has no plans for ordinary nodes and peers.
    pub async fn of(
        component: &Component,
        (kind, config): (String, String),
        features: &[&'static str],
        options: &Options,
    ) -> Result<Self, MeasureError> {
        let name = component.origin.display().to_string();
        let sandbox = Sandbox::new(options.clone())?;
        let mut loaded = component.load(&sandbox).await.map_err(Box::new)?;
        let compile = loaded.compiling().unwrap_or_default();
        let mut load = loaded.loading();
        for _ in 1..TIMES {
            // Compiled again each time, where nothing is kept: so only for what compiles soon.
            if compile > Duration::from_secs(1) {
                break;
            }
            loaded = component.load(&sandbox).await.map_err(Box::new)?;
            load = load.min(loaded.loading());
        }
        let features = features.to_vec();
        let bench = Bench { sandbox, loaded, kind, config, features };
        let good = good::all(&bench).await.map_err(|finding| MeasureError::NoPlan {
            component: name.clone(),
            seen: finding.seen,
            advice: finding.advice,
        })?;
        let good = good::largest(&good);
        let peers = good.many(THOUSAND);
        let failed = |error| MeasureError::Call { component: name.clone(), error };
        let (mut node_time, mut peers_time) = (Duration::MAX, Duration::MAX);
        for _ in 0..TIMES {
            let start = Instant::now();
            bench.sandbox.plan_node(&bench.loaded, Arc::clone(&good.node)).await.map_err(failed)?;
            node_time = node_time.min(start.elapsed());
            let peers = peers.clone();
            let start = Instant::now();
            bench.sandbox.plan_peers(&bench.loaded, Arc::clone(&good.node), peers).await.map_err(failed)?;
            peers_time = peers_time.min(start.elapsed());
        }
        let mut limits = options.limits;
        limits.time *= 10;
        limits.time_per_peer *= 10;
        let metered = Sandbox::new(Options { metering: Metering::Fuel, limits, ..options.clone() })?;
        let counted = component.load(&metered).await.map_err(Box::new)?;
        let before = metered.counters().fuel;
        metered.plan_peers(&counted, Arc::clone(&good.node), peers).await.map_err(failed)?;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Self {
            digest: format!("sha256:{}", component.digest),
            size: component.bytes.len(),
            code_bytes: bench.loaded.code_bytes(),
            compile_ms: milliseconds(compile),
            load_ms: milliseconds(load),
            node_ms: milliseconds(node_time),
            thousand_peers_ms: milliseconds(peers_time),
            thousand_peers_fuel: metered.counters().fuel - before,
            memory: bench.sandbox.counters().memory,
            cluster: good.layout.to_string(),
            component: name,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        let width = all.iter().map(|m| m.component.len()).max().unwrap_or(0).max("component".len());
        writeln!(
            f,
            "{:width$}  {:>9}  {:>9}  {:>10}  {:>8}  {:>8}  {:>11}  {:>8}  {:>16}  {:>9}",
            "component", "size", "code", "compile", "load", "node", "1000 peers", "beside", "operations", "memory"
        )?;
        let first = all.first().map_or(1.0, |m| m.thousand_peers_ms);
        for m in all {
            writeln!(
                f,
                "{:width$}  {:>9}  {:>9}  {:>7.0} ms  {:>5.1} ms  {:>5.2} ms  {:>8.1} ms  {:>7.1}×  {:>16}  {:>9}",
                m.component,
                bytes(m.size),
                bytes(m.code_bytes),
                m.compile_ms,
                m.load_ms,
                m.node_ms,
                m.thousand_peers_ms,
                m.thousand_peers_ms / first,
                short(m.thousand_peers_fuel),
                bytes(m.memory),
            )?;
        }
        writeln!(
            f,
            "\nTimes are the best of {TIMES}, compiling (in a process of its own) once; \"beside\" is the time for 1000 peers beside the \
             first component's. Operations are the same on every machine."
        )
    }
}
