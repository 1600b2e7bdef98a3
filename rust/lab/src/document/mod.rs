//! A scenario as JSON, the form in which Python hands it over: machine, setup, actors, judged invariants (format 1).
//!
//! The schema is written out in `python/vmemmap/lab/description.py`.

mod environment;
mod operation;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmemmap_arch::{Geometry, Granule, Invariant, Layout, Pa, Version};
use vmemmap_kernel::{Kernel, Policies, Ram};
use vmemmap_machine::explored::{Context, MAX_ACTORS};

use crate::scenario::Body;

pub use environment::{
    BbmLevel, ConflictName, EnvironmentDocument, EtsDocument, EtsName, MemoryName, OneOrEach, Oracle, OrderingName,
    SpuriousFault,
};
pub use operation::{GuardName, InDocument, OperationDocument, RangeDocument, ZoneDocument};

/// The only format this version reads.
pub const FORMAT: u32 = 1;

/// What is wrong with a document; one line for people.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DocumentError {
    #[error("scenario: {0}")]
    Json(String),
    #[error("scenario: format {0}, this version reads format {FORMAT}")]
    Format(u32),
    #[error("granule {0}: it is 4096, 16384 or 65536")]
    Granule(u64),
    #[error("va_bits {va_bits} with {granule} pages: arm64 Linux has {known}")]
    VaBits { granule: &'static str, va_bits: u32, known: &'static str },
    #[error("kernel {0:?}: it is 2021, 6.1, 6.12, 6.12.117, 7.2 or 7.3")]
    KernelVersion(String),
    #[error("kernel {0} had no 52-bit addresses with 4K or 16K pages: use 6.12 or later")]
    NoLpa2(&'static str),
    #[error("policy {0:?}: there is no such row; rows are {1}")]
    Policy(String, String),
    #[error("policy {row}={value:?}: it is one of {known}")]
    PolicyValue { row: String, value: String, known: String },
    #[error("{0:?} is no invariant; they are I1 to I34")]
    Invariant(String),
    #[error("RAM: {0}")]
    Ram(String),
    #[error("actor {name:?}: {what}")]
    Actor { name: String, what: String },
    #[error("{name}: {pages} pages, and it looks at each; at most {MOST_PAGES}")]
    Pages { name: String, pages: u64 },
}

/// Pages that one operation may go through. A document may be a stranger's, and nobody asks a walk to end.
const MOST_PAGES: u64 = 1 << 24;

/// The machine part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineDocument {
    pub granule: u64,
    pub va_bits: u32,
    pub kernel: String,
    #[serde(default = "yes")]
    pub hvo: bool,
    #[serde(default)]
    pub memstart: Option<i64>,
    pub boot: Vec<(u64, u64)>,
    #[serde(default)]
    pub hotplug: Vec<(u64, u64)>,
    #[serde(default)]
    pub image: Option<String>,
    #[serde(default)]
    pub policies: std::collections::BTreeMap<String, String>,
}

const fn yes() -> bool {
    true
}

/// One actor of the document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorDocument {
    pub name: String,
    /// CPU of a task, below 16; of an interrupt, the one that it interrupts.
    pub cpu: u8,
    /// Of an explored machine; real threads take no interrupts, there it is one more thread.
    #[serde(default)]
    pub context: ContextDocument,
    #[serde(default = "one")]
    pub rounds: u32,
    /// Either a program or steps.
    #[serde(default)]
    pub program: Option<Vec<OperationDocument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepsDocument>,
}

/// Steps that are asked for while the actors run (`foreign`). What it says of them is for digests and for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsDocument {
    /// The function in Python.
    pub python: String,
    /// Digest of its source, where there is one.
    #[serde(default)]
    pub source: Option<String>,
}

impl ActorDocument {
    /// # Errors
    /// `Actor`: neither a program nor steps, or both.
    pub fn body(&self) -> Result<Body, DocumentError> {
        match (&self.program, &self.steps) {
            (Some(program), None) => Ok(Body::Program(program.iter().map(|o| o.operation()).collect())),
            // A trace lists what was done without saying where a round ends, and an interrupt enters and leaves in
            // each.
            (None, Some(_)) if self.rounds > 1 && self.context != ContextDocument::Task => Err(DocumentError::Actor {
                name: self.name.clone(),
                what: "an interrupt whose steps look at results has one round".into(),
            }),
            (None, Some(_)) => Ok(Body::Scripted),
            _ => Err(DocumentError::Actor { name: self.name.clone(), what: "it has either a program or steps".into() }),
        }
    }
}

const fn one() -> u32 {
    1
}

/// In which context an actor runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextDocument {
    #[default]
    Task,
    Irq,
    /// A pseudo-NMI: also where interrupts are masked.
    Nmi,
}

impl From<ContextDocument> for Context {
    fn from(context: ContextDocument) -> Self {
        match context {
            ContextDocument::Task => Context::Task,
            ContextDocument::Irq => Context::Irq,
            ContextDocument::Nmi => Context::Nmi,
        }
    }
}

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub format: u32,
    pub name: String,
    #[serde(default)]
    pub corpus: Option<String>,
    pub variant: String,
    pub machine: MachineDocument,
    #[serde(default)]
    pub setup: Vec<OperationDocument>,
    pub actors: Vec<ActorDocument>,
    pub judged: Vec<String>,
    #[serde(default)]
    pub environment: EnvironmentDocument,
}

/// Granule and VA size, checked.
///
/// # Errors
/// `Granule`, `VaBits`.
pub fn geometry(granule: u64, va_bits: u32) -> Result<Geometry, DocumentError> {
    let granule = Granule::from_size(granule).ok_or(DocumentError::Granule(granule))?;
    let known = match granule {
        Granule::K4 => "39, 48 and 52",
        Granule::K16 => "36, 47, 48 and 52",
        Granule::K64 => "42, 48 and 52",
    };
    Geometry::new(granule, va_bits).map_err(|_| DocumentError::VaBits { granule: granule.name(), va_bits, known })
}

/// A kernel behaviour by name.
///
/// # Errors
/// `KernelVersion`.
pub fn version(name: &str) -> Result<Version, DocumentError> {
    Version::ALL.into_iter().find(|v| v.name() == name).ok_or_else(|| DocumentError::KernelVersion(name.into()))
}

/// Policies by name over the kernel's own choices.
///
/// # Errors
/// `Policy`, `PolicyValue`, each naming what would be right.
pub fn policies<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Policies, DocumentError> {
    use vmemmap_kernel::policy::PolicyError;
    let mut policies = Policies::default();
    for (row, value) in settings {
        policies.set(row, value).map_err(|e| match e {
            PolicyError::UnknownPolicy => DocumentError::Policy(row.into(), Policies::ROWS.join(", ")),
            PolicyError::UnknownValue { row } => {
                let mut known = Vec::new();
                Policies::for_each_value(row, |name, _| known.push(name));
                DocumentError::PolicyValue { row: row.into(), value: value.into(), known: known.join(", ") }
            }
        })?;
    }
    Ok(policies)
}

/// `"I6"` → the invariant.
///
/// # Errors
/// `Invariant`.
pub fn invariant(name: &str) -> Result<Invariant, DocumentError> {
    name.strip_prefix('I')
        .and_then(|n| n.parse().ok())
        .and_then(Invariant::from_number)
        .ok_or_else(|| DocumentError::Invariant(name.into()))
}

impl MachineDocument {
    /// The kernel of this machine. `memstart_addr` defaults to the start of RAM aligned down as arm64 does.
    ///
    /// # Errors
    /// Any combination that arm64 Linux does not have, and RAM that overlaps, is misaligned or lies outside the address
    /// space.
    pub fn kernel(&self) -> Result<Kernel, DocumentError> {
        let geometry = geometry(self.granule, self.va_bits)?;
        let version = version(&self.kernel)?;
        let ram = ram(&geometry, &self.boot, &self.hotplug)?;
        let memstart = self.memstart.unwrap_or_else(|| default_memstart(&geometry, &ram));
        let layout = Layout::new(geometry, version, memstart).map_err(|_| DocumentError::NoLpa2(version.name()))?;
        // The kernel drops memory above its linear map, with a message; a machine of less memory than was asked for is
        // no answer.
        let room = layout.page_end.since(layout.page_offset);
        if let Some(r) =
            ram.iter().find(|r| r.boot && r.start.0.wrapping_sub(memstart as u64).saturating_add(r.bytes) > room)
        {
            let bits = geometry.va_bits;
            let what = format!(
                "range {:#x}+{:#x} does not fit the linear map: {room:#x} bytes with {bits}-bit addresses",
                r.start.0, r.bytes
            );
            return Err(DocumentError::Ram(what));
        }
        let policies = policies(self.policies.iter().map(|(k, v)| (k.as_str(), v.as_str())))?;
        Ok(Kernel::new(layout, policies, &ram, self.hvo))
    }
}

/// `memstart_addr` without KASLR: the start of RAM rounded down to `ARM64_MEMSTART_ALIGN`.
#[must_use]
pub fn default_memstart(geometry: &Geometry, ram: &[Ram]) -> i64 {
    let align = match geometry.granule {
        Granule::K4 | Granule::K16 => 1u64 << 30,
        Granule::K64 => 512 << 20,
    };
    let first = ram.iter().filter(|r| r.boot).map(|r| r.start.0).min().unwrap_or(0);
    (first & !(align - 1)) as i64
}

/// RAM ranges, sorted and checked.
///
/// # Errors
/// `Ram`: no boot RAM, overlap, misalignment, more ranges than a kernel holds.
pub fn ram(geometry: &Geometry, boot: &[(u64, u64)], hotplug: &[(u64, u64)]) -> Result<Vec<Ram>, DocumentError> {
    let mut ram: Vec<Ram> = boot
        .iter()
        .map(|&(start, bytes)| Ram { start: Pa(start), bytes, boot: true })
        .chain(hotplug.iter().map(|&(start, bytes)| Ram { start: Pa(start), bytes, boot: false }))
        .filter(|r| r.bytes != 0)
        .collect();
    ram.sort_by_key(|r| r.start);
    if !ram.iter().any(|r| r.boot) {
        return Err(DocumentError::Ram("a machine needs boot memory".into()));
    }
    if ram.len() > vmemmap_kernel::MAX_RAM_RANGES {
        return Err(DocumentError::Ram(format!("{} ranges, at most {}", ram.len(), vmemmap_kernel::MAX_RAM_RANGES)));
    }
    let section = geometry.section_size();
    let pa_bits = if geometry.va_bits == 52 { 52 } else { 48 };
    for r in &ram {
        let unit = if r.boot { geometry.page_size() } else { section };
        if r.start.0 % unit != 0 || r.bytes % unit != 0 {
            return Err(DocumentError::Ram(format!(
                "range {:#x}+{:#x} is not a multiple of {:#x}",
                r.start.0, r.bytes, unit
            )));
        }
        if r.start.0.checked_add(r.bytes).is_none_or(|end| end > 1 << pa_bits) {
            return Err(DocumentError::Ram(format!(
                "range {:#x}+{:#x} lies above {pa_bits}-bit physical addresses",
                r.start.0, r.bytes
            )));
        }
    }
    for pair in ram.windows(2) {
        if pair[0].start.0 + pair[0].bytes > pair[1].start.0 {
            return Err(DocumentError::Ram(format!(
                "{:#x}+{:#x} overlaps {:#x}",
                pair[0].start.0, pair[0].bytes, pair[1].start.0
            )));
        }
    }
    Ok(ram)
}

impl Document {
    /// # Errors
    /// `Json` with serde's place and reason, `Format`.
    pub fn parse(json: &str) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_str(json).map_err(|e| DocumentError::Json(e.to_string()))?;
        if document.format != FORMAT {
            return Err(DocumentError::Format(document.format));
        }
        if let Some(actor) = document.actors.iter().find(|a| a.cpu >= MAX_ACTORS) {
            return Err(DocumentError::Actor {
                name: actor.name.clone(),
                what: format!("CPU {}, of {MAX_ACTORS}", actor.cpu),
            });
        }
        let programs = document.actors.iter().flat_map(|a| a.program.iter().flatten());
        match document.setup.iter().chain(programs).find(|o| o.pages() > MOST_PAGES) {
            Some(long) => Err(DocumentError::Pages { name: long.kind(), pages: long.pages() }),
            None => Ok(document),
        }
    }
    /// # Errors
    /// `Invariant`.
    pub fn judged(&self) -> Result<Vec<Invariant>, DocumentError> {
        self.judged.iter().map(|name| invariant(name)).collect()
    }
}
