//! What can be read off a component without running it: what it imports and exports, and what its tools wrote into it.

use wasmparser::{ComponentName, CustomSectionReader, Encoding, KnownCustom, Parser, Payload};

use crate::inspect::{MAX_COMPONENT, PLANNER, Refusal};
use crate::log::printable;

/// Custom sections that say something about a component as text, by the convention of the WebAssembly tools.
const LABELS: [&str; 7] = ["authors", "description", "homepage", "licenses", "revision", "source", "version"];
/// Entries of what tools wrote that are kept: it is for people, and hostile as everything in the file.
const ENOUGH: usize = 32;

/// What a component is made of, at its outermost level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Its own name, if a tool wrote one.
    pub name: Option<String>,
    /// Names of what it imports.
    pub imports: Vec<String>,
    /// Names of what it exports.
    pub exports: Vec<String>,
    /// Who made it.
    pub producers: Vec<Producer>,
    /// What its author says of it: name of the section and its text.
    pub labels: Vec<(String, String)>,
}

/// A tool or a language that had a part in a component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// Its version, which may be empty.
    pub version: String,
}

impl Anatomy {
    /// Reads the names; whether the rest is sound is for the compiler process to find out.
    ///
    /// # Errors
    /// When the bytes are no component.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::Empty);
        }
        if bytes.len() > MAX_COMPONENT {
            return Err(Refusal::TooBig(bytes.len()));
        }
        if !bytes.starts_with(b"\0asm") {
            return Err(mistaken(bytes));
        }
        let damaged = |e: wasmparser::BinaryReaderError| Refusal::Damaged(one_line(&e.to_string()));
        let mut anatomy = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(Refusal::CoreModule),
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        anatomy.imports.push(import.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        anatomy.exports.push(export.map_err(damaged)?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => anatomy.note(&section, depth),
                _ => {}
            }
        }
        anatomy.producers.sort();
        anatomy.producers.dedup();
        Ok(anatomy)
    }

    /// The release of `twill:backend` that it was built against: of the generation that this host speaks if it has that
    /// among others.
    #[must_use]
    pub fn contract(&self) -> Option<&str> {
        let versions = || self.exports.iter().filter_map(|name| name.strip_prefix(PLANNER)?.strip_prefix('@'));
        versions().find(|version| version.starts_with("1.")).or_else(|| versions().next())
    }

    /// What tools wrote. It has no say in whether this is a backend, so what cannot be read is as if it were not there.
    fn note(&mut self, section: &CustomSectionReader<'_>, depth: u32) {
        if depth == 0 && LABELS.contains(&section.name()) && self.labels.len() < ENOUGH {
            let text = printable(&String::from_utf8_lossy(section.data()));
            self.labels.push((section.name().to_owned(), text));
        }
        match section.as_known() {
            KnownCustom::Producers(fields) => {
                for field in fields.into_iter().map_while(Result::ok) {
                    for value in field.values.into_iter().map_while(Result::ok) {
                        if self.producers.len() < ENOUGH {
                            self.producers.push(Producer {
                                field: printable(field.name),
                                name: printable(value.name),
                                version: printable(value.version),
                            });
                        }
                    }
                }
            }
            KnownCustom::ComponentName(names) if depth == 0 => {
                for name in names.into_iter().map_while(Result::ok) {
                    if let ComponentName::Component { name, .. } = name {
                        self.name = Some(printable(name));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What people give for a component that is none.
fn mistaken(bytes: &[u8]) -> Refusal {
    if bytes.starts_with(b"\x1f\x8b") {
        return Refusal::Gzip;
    }
    if bytes.starts_with(b"\x7fELF") {
        return Refusal::MachineCode;
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64 << 10)]);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let first = lines.next().unwrap_or_default();
    let begins = |words: &[&str]| words.iter().any(|word| first.starts_with(word));
    if begins(&["(component", "(module"]) {
        Refusal::WasmText
    } else if begins(&["package ", "world ", "interface "]) {
        Refusal::WitText
    } else {
        Refusal::NotWasm
    }
}
/// The parser shows bytes on lines of their own.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
