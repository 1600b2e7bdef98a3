//! Operations of a document: those of the kernel, field by field.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vmemmap_arch::{Pa, Pfn, PfnRange, Va, VaRange, Zone};
use vmemmap_kernel::Operation;
use vmemmap_kernel::operation::Guard;

/// Half-open range in a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeDocument {
    pub start: u64,
    pub end: u64,
}

/// How a field of an operation is written in a document.
pub trait InDocument {
    type Document: Clone + PartialEq + Eq + fmt::Debug + Serialize + DeserializeOwned;
    fn from_document(document: Self::Document) -> Self;
}

macro_rules! in_document {
    ($( $type:ty, $document:ty: |$it:ident| $value:expr; )*) => {
        $( impl InDocument for $type {
            type Document = $document;
            fn from_document($it: $document) -> Self {
                $value
            }
        } )*
    };
}

in_document! {
    u8, u8: |it| it;
    u64, u64: |it| it;
    i64, i64: |it| it;
    bool, bool: |it| it;
    Pfn, u64: |it| Pfn(it);
    Pa, u64: |it| Pa(it);
    VaRange, RangeDocument: |it| Va(it.start)..Va(it.end);
    PfnRange, RangeDocument: |it| Pfn(it.start)..Pfn(it.end);
    Zone, ZoneDocument: |it| match it {
        ZoneDocument::Normal => Zone::Normal,
        ZoneDocument::Movable => Zone::Movable,
    };
    Guard, GuardName: |it| match it {
        GuardName::IrqsOff => Guard::IrqsOff,
        GuardName::GupFast => Guard::GupFast,
        GuardName::ListLock => Guard::ListLock,
    };
}

impl<T: InDocument> InDocument for Option<T> {
    type Document = Option<T::Document>;
    fn from_document(document: Self::Document) -> Self {
        document.map(T::from_document)
    }
}

macro_rules! documents {
    (
        $parameters:tt
        { $( $(#[doc = $doc:expr])* $class:ident $variant:ident $name:literal
            $({ $( $(#[$attr:meta])* $field:ident: $type:ty ),* $(,)? })? => $body:expr; )* }
        $internal:tt
    ) => {
        /// `Operation` as JSON: `{"op": "hugetlb_alloc", "hstate": 1, "at": 266240}`.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(tag = "op", deny_unknown_fields)]
        pub enum OperationDocument {
            $( #[serde(rename = $name)] $variant $({ $( $(#[$attr])* $field: <$type as InDocument>::Document ),* })?, )*
        }

        impl OperationDocument {
            /// Its name in a document: `"hugetlb_alloc"`.
            #[must_use]
            pub fn kind(&self) -> String {
                match self {
                    $( Self::$variant { .. } => $name.to_owned(), )*
                }
            }

            /// The operation.
            #[must_use]
            pub fn operation(&self) -> Operation {
                match self.clone() {
                    $( Self::$variant $({ $($field),* })? =>
                        Operation::$variant $({ $( $field: InDocument::from_document($field) ),* })?, )*
                }
            }
        }
    };
}

vmemmap_kernel::for_each_operation!(documents);

const fn one_page() -> u64 {
    1
}

impl OperationDocument {
    /// Pages that it goes through whether they are there or not; 0 of what ends where memory does.
    pub(super) fn pages(&self) -> u64 {
        match self.operation() {
            Operation::PfnWalk { start, end, step } | Operation::KmemleakScan { start, end, step } => {
                end.0.saturating_sub(start.0).div_ceil(step.max(1))
            }
            Operation::ScanMovablePages { start, end } => end.0.saturating_sub(start.0),
            Operation::SetMemoryValid { pages, .. }
            | Operation::LinearMapSplitToPtes { pages, .. }
            | Operation::VmallocCycle { pages }
            | Operation::VmallocAndKeep { pages } => pages,
            _ => 0,
        }
    }
}

/// `"normal"` or `"movable"`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneDocument {
    Normal,
    #[default]
    Movable,
}

impl fmt::Display for OperationDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// See `Guard`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardName {
    IrqsOff,
    GupFast,
    ListLock,
}
