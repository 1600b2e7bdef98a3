//! What surrounds the actors of a document: which outcomes there are, and what is looked at.

use serde::{Deserialize, Serialize};
use vmemmap_machine::config::Ets;

/// What the environment of an explored machine may do, and what its oracles look at. Absent keys: the defaults of
/// `WorldOptions`. A stress on real threads has none of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironmentDocument {
    /// `strict` judges what survives when a frame is freed, `observed` only accesses that go wrong.
    pub oracle: Oracle,
    /// Allocations of an execution that may fail as a choice of the environment.
    pub alloc_failures: u32,
    /// PREEMPT_RT: a spinlock sleeps and may not be taken in an interrupt or with interrupts off.
    pub preempt_rt: bool,
    /// An access that may still see an entry as it was before it became valid: `tolerated`, as by
    /// `is_spurious_el1_translation_fault`, or `fatal` (I2).
    pub spurious_fault: SpuriousFault,
    /// FEAT_ETS2 or FEAT_ETS3; without them a CPU may see the old invalid entry until its own ISB or exception entry.
    pub ets: EtsDocument,
    /// When an invalidate covers a store, and when a new entry cannot fault any more.
    pub ordering: OrderingName,
    /// `sc`: sequentially consistent memory; `views`: plain stores wait in their CPU's buffer (docs/memory-model.md).
    pub memory: MemoryName,
    /// FEAT_BBM of all CPUs, or of each.
    pub feat_bbm: OneOrEach<BbmLevel>,
    /// What an access does that could use two translations that break-before-make should have kept apart.
    pub conflict: ConflictName,
    /// Address space of each CPU; those beyond the last CPU ran before.
    pub asids: Vec<u16>,
    /// An IOMMU shares the kernel's tables (SVA); it caches table entries, and no TLBI reaches it.
    pub iommu: bool,
}

impl Default for EnvironmentDocument {
    fn default() -> Self {
        Self {
            oracle: Oracle::default(),
            alloc_failures: 0,
            preempt_rt: false,
            spurious_fault: SpuriousFault::default(),
            ets: EtsDocument::default(),
            ordering: OrderingName::default(),
            memory: MemoryName::default(),
            feat_bbm: OneOrEach::One(BbmLevel::Level0),
            conflict: ConflictName::default(),
            asids: Vec::new(),
            iommu: false,
        }
    }
}

/// FEAT_ETS2 of all CPUs: whether, or which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EtsDocument {
    Whether(bool),
    Which(EtsName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtsName {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "2")]
    Two,
    #[serde(rename = "3")]
    Three,
}

/// `published`: after the DSB of its own CPU; `ordered`: as in Arm's model (docs/memory-model.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderingName {
    Published,
    #[default]
    Ordered,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryName {
    #[default]
    Sc,
    Views,
}

impl Default for EtsDocument {
    fn default() -> Self {
        Self::Which(EtsName::Two)
    }
}

impl From<EtsDocument> for Ets {
    fn from(ets: EtsDocument) -> Self {
        match ets {
            EtsDocument::Whether(false) | EtsDocument::Which(EtsName::None) => Ets::None,
            EtsDocument::Whether(true) | EtsDocument::Which(EtsName::Two) => Ets::Two,
            EtsDocument::Which(EtsName::Three) => Ets::Three,
        }
    }
}

/// One value for every CPU, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrEach<T> {
    One(T),
    Each(Vec<T>),
}

/// `ID_AA64MMFR2_EL1.BBM`, or the CPUs that Linux trusts never to raise a conflict abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BbmLevel {
    #[serde(rename = "0")]
    Level0,
    #[serde(rename = "1")]
    Level1,
    #[serde(rename = "2")]
    Level2,
    #[serde(rename = "noabort")]
    NoAbort,
}

/// What the kernel does about a spurious fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpuriousFault {
    #[default]
    Tolerated,
    Fatal,
}

/// `vmemmap_machine::explored::Conflict` by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictName {
    #[default]
    AtWrite,
    AtAccess,
    Amalgamate,
    Abort,
}

/// Which oracle judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oracle {
    #[default]
    Strict,
    Observed,
}
