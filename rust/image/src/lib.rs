//! Dumps of real kernels in and out: the text of `kernel_page_tables`, and table images (words of table pages by
//! physical address). Knows only `arch`; files are opened by whoever calls.
#![forbid(unsafe_code)]

pub mod collect;
pub mod column_texts;
pub mod diff;
mod extent;
mod hex;
pub mod leaves;
pub mod mapping;
pub mod pasted;
pub mod ptdump;
pub mod ptdump_parse;
pub mod ptdump_text;
pub mod shape;
pub mod survey;
pub mod table_image;
pub mod text_alone;
pub mod text_check;
pub mod text_machine;

pub use collect::{Collected, Collector, TooManyTables, mapped};
pub use leaves::{LeafRun, leaves};
pub use pasted::{Tidied, tidy};
pub use ptdump::{PartsError, Ptdump};
pub use ptdump_parse::{Line, Lines, RangeLine, TextError, region};
pub use ptdump_text::TextWriter;
pub use shape::Shape;
pub use survey::{HugepageState, SectionState, VmemmapStyle};
pub use table_image::{ImageError, ImageMeta, TableImage};
