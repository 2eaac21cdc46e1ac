//! What a backend is: everything that can be told of it without asking it for a plan.

use std::fmt;

use serde::Serialize;
use twill_model::Descriptor;
use twill_sandbox::{Anatomy, Loaded, Sandbox};

use super::component::{Component, Host, NoBackend, bytes};

/// A backend as `twill backend inspect` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// Its file.
    pub origin: String,
    /// The type that its file's name gives it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its digest, with the name of the hash before it.
    pub digest: String,
    /// Bytes of the component.
    pub size: usize,
    /// The world that it is for.
    pub world: &'static str,
    /// The release of the contract that it was built against.
    pub contract: String,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it says of itself when it is asked.
    pub descriptor: Descriptor,
    /// Features that it requires and this host does not have.
    pub missing_features: Vec<String>,
    /// What its author wrote into it.
    pub labels: Vec<Label>,
    /// Languages and tools that made it.
    pub producers: Vec<Made>,
    /// Milliseconds that compiling took, in a process of its own.
    pub compile_ms: f64,
    /// Milliseconds that loading the code took.
    pub load_ms: f64,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Who says so.
    pub host: Host,
}

/// Something that an author wrote into a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    /// What it is about: `name`, `authors`, `licenses`.
    pub about: String,
    /// The text.
    pub text: String,
}

/// A language or tool that made a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Its part: `language`, `processed-by`, `sdk`.
    pub part: String,
    /// Its name.
    pub name: String,
    /// Its version, which may be empty.
    pub version: String,
}

impl Profile {
    /// Looks at a component, compiles it and asks it what it is. `features` are those of the host.
    ///
    /// # Errors
    /// When it is no backend.
    pub async fn of(component: &Component, sandbox: &Sandbox, features: &[&str]) -> Result<Self, NoBackend> {
        let loaded = component.load(sandbox).await?;
        Ok(Self::new(component, &loaded, features))
    }

    fn new(component: &Component, loaded: &Loaded, features: &[&str]) -> Self {
        let anatomy = Anatomy::read(&component.bytes).unwrap_or_default();
        let descriptor = loaded.descriptor().clone();
        let missing = descriptor.requires.iter().filter(|f| !features.contains(&f.as_str())).cloned();
        let name = anatomy.name.clone().map(|name| ("name".to_owned(), name));
        let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        Self {
            origin: component.origin.display().to_string(),
            kind: component.kind.clone(),
            digest: format!("sha256:{}", component.digest),
            size: component.bytes.len(),
            world: "backend",
            contract: anatomy.contract().unwrap_or_default().to_owned(),
            missing_features: missing.collect(),
            descriptor,
            labels: name.into_iter().chain(anatomy.labels).map(|(about, text)| Label { about, text }).collect(),
            producers: anatomy
                .producers
                .into_iter()
                .map(|p| Made { part: p.field, name: p.name, version: p.version })
                .collect(),
            exports: anatomy.exports,
            imports: anatomy.imports,
            compile_ms: milliseconds(loaded.compiling().unwrap_or_default()),
            load_ms: milliseconds(loaded.loading()),
            code_bytes: loaded.code_bytes(),
            host: Host::default(),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |title: &str, text: &str| writeln!(f, "{title:<10} {text}");
        let Descriptor { name, version, accepts, requires } = &self.descriptor;
        line("component", &self.origin)?;
        line("digest", &self.digest)?;
        line("size", &bytes(self.size))?;
        line("says", &format!("{name} {version}"))?;
        line("requires", &listed(requires))?;
        if !accepts.is_empty() {
            line("accepts", &listed(accepts))?;
        }
        line("contract", &format!("twill:backend {}, world {}", self.contract, self.world))?;
        line("host", &self.host.to_string())?;
        if !self.missing_features.is_empty() {
            line("", &format!("it lacks {}: the backend would be refused there", listed(&self.missing_features)))?;
        }
        for (title, list) in [("exports", &self.exports), ("imports", &self.imports)] {
            for (at, name) in list.iter().enumerate() {
                line(if at == 0 { title } else { "" }, &name.escape_debug().to_string())?;
            }
        }
        for (at, Made { part, name, version }) in self.producers.iter().enumerate() {
            line(if at == 0 { "made with" } else { "" }, &format!("{name} {version} ({part})"))?;
        }
        for Label { about, text } in &self.labels {
            line(about, text)?;
        }
        let Self { compile_ms, load_ms, .. } = self;
        line("code", &format!("{}, compiled in {compile_ms:.0} ms, loaded in {load_ms:.1} ms", bytes(self.code_bytes)))
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
