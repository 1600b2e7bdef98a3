//! A live machine, driven from Python one kernel operation at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use vmemmap_arch::{Attr, Layout, Level, Pa, Pfn, Va};
use vmemmap_image::TextWriter;
use vmemmap_kernel::mmzone::{MEM_GOING_OFFLINE, MEM_ONLINE, MMOP_ONLINE_KERNEL, MMOP_ONLINE_MOVABLE};
use vmemmap_kernel::operation::Row;
use vmemmap_kernel::ptdump::PtdumpSink;
use vmemmap_kernel::{MAX_RAM_RANGES, Operation, Policies, Ram, check};
use vmemmap_lab::document::{self, MachineDocument, OperationDocument};
use vmemmap_lab::live::{BlockState, HugepageRun, LiveError, LiveMachine, Loading};
use vmemmap_machine::{Violation, first_frame_alignment};

use crate::arrays::{self, Words};
use crate::errors::{Error, guarded};
use crate::image::{TableImage, real_machine};
use crate::interrupt::{abandonable, interruptible_at_hand};
use crate::layout;

/// Arrays of an image: addresses, levels, words.
type ImageArrays<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray2<u64>>);

/// Level, descriptor, PFN, permissions, physical address.
type Walked = (i8, u64, Option<u64>, &'static str, Option<u64>);

fn json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Spec(format!("{what}: {error}")))
}

/// Name of an operation and where, for the message of a `KernelError`.
fn named(operation: &OperationDocument) -> String {
    serde_json::to_string(operation)
        .unwrap_or_default()
        .replace(['"', '{', '}'], "")
        .replace(':', " ")
        .replace(',', ", ")
}

/// What `/sys/devices/system/memory/memoryN/state` says.
fn state_name(state: u64) -> &'static str {
    match state {
        MEM_ONLINE => "online",
        MEM_GOING_OFFLINE => "going-offline",
        _ => "offline",
    }
}

fn zone_name(block: &BlockState) -> Option<&'static str> {
    let name = if block.zone == MMOP_ONLINE_MOVABLE { "movable" } else { "normal" };
    (block.state == MEM_ONLINE).then_some(name)
}

/// What ptdump notes, as the kernel's text.
struct Text<W: Write>(TextWriter<W>);

impl<W: Write> PtdumpSink for Text<W> {
    fn marker(&mut self, name: &'static str) {
        self.0.marker(name);
    }
    fn range(&mut self, start: Va, end: Va, level: i8, prot: u64) {
        self.0.range(start, end, u8::try_from(level).unwrap_or(0), prot);
    }
}

/// An arm64 machine and its kernel. Any thread may call; the kernel's own locks decide who waits.
#[pyclass(frozen, module = "vmemmap._core")]
pub struct Machine {
    /// Shared with the thread that runs an operation; counters in it are aligned to cache lines.
    live: Arc<LiveMachine>,
    /// Addresses where a DIMM may be plugged, though nobody named them: RAM only as far as memory was added there.
    slots: Vec<Ram>,
}

/// Bytes above the last RAM where a DIMM may be plugged into a loaded machine. They cost nothing until they are used.
const SLOTS: u64 = 64 << 30;

/// Where a machine has no RAM between its ranges and above them, as far as the linear map goes and as many frames as a
/// machine can have.
fn slots(layout: &Layout, ram: &[Ram]) -> Vec<Ram> {
    let size = layout.geometry.section_size();
    let first = ram.first().map_or(0, |range| range.start.0 & !(first_frame_alignment(&layout.geometry) - 1));
    let last = (layout.memstart as u64)
        .wrapping_add(layout.page_end.since(layout.page_offset))
        .min(first.saturating_add(layout.geometry.page_size() << 32));
    let mut found = Vec::new();
    for (i, range) in ram.iter().enumerate() {
        let start = (range.start.0 + range.bytes).next_multiple_of(size);
        let end =
            ram.get(i + 1).map_or_else(|| start.saturating_add(SLOTS).min(last), |next| next.start.0) & !(size - 1);
        if start < end && ram.len() + found.len() < MAX_RAM_RANGES {
            found.push(Ram { start: Pa(start), bytes: end - start, boot: false });
        }
    }
    found
}

impl Words for Machine {
    fn table_words(&self, pa: Pa) -> Option<&[AtomicU64]> {
        self.live.machine().table_words(pa)
    }
}

impl Machine {
    fn copy_row(&self, pa: Pa, width: usize, words: &mut Vec<u64>) {
        let page = self.table_words(pa).unwrap_or_default();
        words.extend(page.iter().map(|w| w.load(Ordering::Relaxed)));
        words.resize(words.len().next_multiple_of(width), 0);
    }

    /// Numbers of the memory blocks that are online and that `which` names.
    fn online_blocks(&self, py: Python<'_>, which: impl Fn(&BlockState) -> bool) -> Vec<u64> {
        let online = py.detach(|| self.live.blocks()).into_iter().filter(|b| b.state == MEM_ONLINE);
        online.filter(which).map(|b| b.start.0 / b.bytes).collect()
    }

    fn sorted_tables(&self) -> Vec<(Pa, Level)> {
        let mut tables = self.live.machine().tables();
        tables.sort_unstable();
        tables
    }

    /// Run `work` on a thread that Ctrl-C can interrupt: a signal is pending for kernel code then (`-EINTR`).
    fn interruptibly<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&LiveMachine) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let machine = self.live.machine();
        let live = Arc::clone(&self.live);
        let (result, interrupted) = interruptible_at_hand(py, move || work(&live), || machine.set_signal(true))?;
        machine.set_signal(false);
        interrupted.map_or(Ok(result), |error| Err(error.into()))
    }
}

#[pymethods]
impl Machine {
    /// Boot a machine that a document describes (`machine` of the scenario format).
    #[staticmethod]
    fn boot(py: Python<'_>, document: &str, checked: bool) -> PyResult<Self> {
        guarded(py, || {
            let document: MachineDocument = json(document, "machine")?;
            let kernel = document.kernel()?;
            let live = abandonable(py, move || LiveMachine::boot(kernel, checked).map(Arc::new))??;
            Ok(Self { live, slots: Vec::new() })
        })
    }

    /// A real kernel's tables as a live machine, which uses up the image; `policies` is a JSON object of rows.
    #[staticmethod]
    fn load(py: Python<'_>, image: &TableImage, policies: &str, checked: bool) -> PyResult<Self> {
        guarded(py, || {
            let mut rows: BTreeMap<String, String> = json(policies, "policies")?;
            let live = py.detach(|| {
                let image = image.take()?;
                let map = image.linear_map();
                rows.entry("linear-map".into())
                    .or_insert_with(|| if map.hot_adds_blocks { "blocks" } else { "pages" }.into());
                let chosen = document::policies(rows.iter().map(|(k, v)| (k.as_str(), v.as_str())))?;
                let mut real = real_machine(&image);
                real.ram.sort_unstable_by_key(|r| r.start);
                let slots = slots(&real.layout, &real.ram);
                real.ram.extend(&slots);
                real.ram.sort_unstable_by_key(|r| r.start);
                let refused = |error: LiveError| Error::Image(error.to_string());
                let loading = Loading::new(&real, chosen, checked).map_err(refused)?;
                let loading = loading.tables(image.tables()).map_err(refused)?;
                // The tables are in the machine now; of terabytes they are half a gigabyte.
                drop(image);
                let live = loading.finish(&real).map_err(refused)?;
                Ok::<_, Error>(Self { live: Arc::new(live), slots })
            })?;
            Ok(live)
        })
    }

    #[getter]
    fn granule(&self) -> u64 {
        self.live.kernel().geometry.page_size()
    }
    #[getter]
    fn va_bits(&self) -> u32 {
        self.live.kernel().geometry.va_bits
    }
    #[getter]
    fn kernel(&self) -> &'static str {
        self.live.kernel().layout.version.name()
    }
    #[getter]
    fn root(&self) -> u64 {
        self.live.machine().root().0
    }
    #[getter]
    fn section_size(&self) -> u64 {
        self.live.kernel().geometry.section_size()
    }
    #[getter]
    fn hvo(&self) -> bool {
        self.live.hvo()
    }

    /// Run one operation (JSON) and return its result. Raises `KernelError`.
    fn run(&self, py: Python<'_>, operation: &str) -> PyResult<u64> {
        guarded(py, || {
            let document: OperationDocument = json(operation, "operation")?;
            let operation = document.operation();
            self.interruptibly(py, move |live| live.run(&operation))?
                .map_err(|errno| Error::Kernel(errno, named(&document)))
        })
    }

    /// Exactly these pages into the pool; returns their heads. Raises `KernelError`.
    fn allocate(&self, py: Python<'_>, hstate: u8, pfns: Vec<u64>) -> PyResult<Vec<u64>> {
        guarded(py, || {
            let heads: Vec<Pfn> = pfns.iter().copied().map(Pfn).collect();
            let done = self.interruptibly(py, move |live| live.allocate_exactly(hstate, &heads))?;
            done.map(|_| pfns).map_err(|errno| Error::Kernel(errno, "allocating exactly these hugepages".into()))
        })
    }

    /// Exactly these pages out of the pool; returns their heads. Raises `KernelError`.
    fn release(&self, py: Python<'_>, hstate: u8, pfns: Vec<u64>) -> PyResult<Vec<u64>> {
        guarded(py, || {
            let heads: Vec<Pfn> = pfns.iter().copied().map(Pfn).collect();
            let done = self.interruptibly(py, move |live| live.free_exactly(hstate, &heads))?;
            done.map(|_| pfns).map_err(|errno| Error::Kernel(errno, "freeing exactly these hugepages".into()))
        })
    }

    /// Counters of one pool.
    fn pool<'py>(&self, py: Python<'py>, hstate: u8) -> PyResult<Bound<'py, PyDict>> {
        guarded(py, || {
            let pool = self.live.pool(hstate);
            let d = PyDict::new(py);
            for (name, value) in [
                ("nr", pool.nr),
                ("free", pool.free),
                ("resv", pool.resv),
                ("surplus", pool.surplus),
                ("overcommit", pool.overcommit),
            ] {
                d.set_item(name, value)?;
            }
            Ok(d)
        })
    }

    /// Number of pages of a pool that are optimised.
    fn optimised(&self, py: Python<'_>, hstate: u8) -> PyResult<u64> {
        guarded(py, || Ok(py.detach(|| self.live.optimised(hstate))))
    }

    /// (PFN of the head, base pages) of each page of a pool.
    fn pages(&self, py: Python<'_>, hstate: u8) -> PyResult<Vec<(u64, u64)>> {
        guarded(py, || {
            Ok(py.detach(|| self.live.pages(hstate)).into_iter().map(|(pfn, pages)| (pfn.0, pages)).collect())
        })
    }

    /// The same as runs: (PFN of the first head, base pages of each, number of pages) of those side by side.
    fn page_runs(&self, py: Python<'_>, hstate: u8) -> PyResult<Vec<(u64, u64, u64)>> {
        guarded(py, || {
            let of = |run: HugepageRun| (run.first.0, run.pages, run.count);
            Ok(py.detach(|| self.live.page_runs(hstate)).into_iter().map(of).collect())
        })
    }

    /// Every memory block device that begins in a range of so many bytes.
    #[pyo3(signature = (start = 0, size = u64::MAX))]
    fn blocks<'py>(&self, py: Python<'py>, start: u64, size: u64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        guarded(py, || {
            let each = |block: BlockState| {
                let d = PyDict::new(py);
                d.set_item("number", block.start.0 / block.bytes)?;
                d.set_item("start", block.start.0)?;
                d.set_item("size", block.bytes)?;
                d.set_item("state", state_name(block.state))?;
                d.set_item("zone", zone_name(&block))?;
                Ok(d)
            };
            let blocks = py.detach(|| self.live.blocks());
            let inside = |block: &BlockState| block.start.0.checked_sub(start).is_some_and(|offset| offset < size);
            blocks.into_iter().filter(inside).map(each).collect()
        })
    }

    /// Numbers of those that are online: of tens of terabytes there are half a million.
    fn blocks_online(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        guarded(py, || Ok(self.online_blocks(py, |_| true)))
    }

    /// Numbers of those that were added and are online in a zone of the kernel's.
    fn blocks_kernel(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        let added = |b: &BlockState| b.zone == MMOP_ONLINE_KERNEL && !self.live.kernel().is_boot_ram(b.start);
        guarded(py, || Ok(self.online_blocks(py, added)))
    }

    /// (physical address, bytes, present at boot) of each range of RAM.
    fn ram(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64, bool)>> {
        guarded(py, || {
            let blocks = self.live.blocks();
            let mut found: Vec<(u64, u64, bool)> = Vec::new();
            for r in self.live.kernel().ram() {
                if !self.slots.contains(r) {
                    found.push((r.start.0, r.bytes, r.boot));
                    continue;
                }
                for block in blocks.iter().filter(|b| b.start >= r.start && b.start.0 < r.start.0 + r.bytes) {
                    match found.last_mut() {
                        Some(last) if !last.2 && last.0 >= r.start.0 && last.0 + last.1 == block.start.0 => {
                            last.1 += block.bytes
                        }
                        _ => found.push((block.start.0, block.bytes, false)),
                    }
                }
            }
            Ok(found)
        })
    }

    fn layout<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guarded(py, || Ok(layout::describe(py, &self.live.kernel().layout)?))
    }

    /// The choice of every policy row.
    fn policies(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, &'static str>> {
        guarded(py, || {
            let chosen = &self.live.kernel().policies;
            Ok(Policies::ROWS.iter().filter_map(|row| Some((*row, chosen.get(row)?))).collect())
        })
    }

    /// Counters of everything that was done so far, by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guarded(py, || {
            let d = PyDict::new(py);
            for (name, value) in py.detach(|| self.live.counters()) {
                d.set_item(name, value)?;
            }
            Ok(d)
        })
    }

    /// What a checked machine saw.
    fn violations<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        guarded(py, || {
            let each = |v: Violation| {
                let d = PyDict::new(py);
                d.set_item("invariant", v.invariant.to_string())?;
                d.set_item("address", v.address)?;
                d.set_item("message", v.to_string())?;
                d.set_item("actor", v.actor.name)?;
                d.set_item("step", v.step)?;
                Ok(d)
            };
            py.detach(|| self.live.machine().violations()).into_iter().map(each).collect()
        })
    }

    /// What tables, pools and sections at rest break.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        guarded(py, || {
            let each = |f: check::Violation| {
                let d = PyDict::new(py);
                d.set_item("invariant", f.invariant.to_string())?;
                d.set_item("address", f.address)?;
                d.set_item("message", f.message)?;
                Ok(d)
            };
            py.detach(|| self.live.check()).0.into_iter().map(each).collect()
        })
    }

    /// Let the nth allocation from now fail; `None`: none.
    fn fail_allocation(&self, py: Python<'_>, nth: Option<u64>) -> PyResult<()> {
        guarded(py, || {
            self.live.machine().fail_alloc(0, nth.unwrap_or(0));
            Ok(())
        })
    }

    /// `pfn_to_page`.
    fn page_address(&self, pfn: u64) -> u64 {
        self.live.kernel().layout.page_va(Pfn(pfn)).0
    }

    /// The eight words of the struct page of a PFN, as the tables map it; `None` where they map nothing.
    fn struct_page(&self, py: Python<'_>, pfn: u64) -> PyResult<Option<[u64; 8]>> {
        guarded(py, || Ok(self.live.struct_page(Pfn(pfn))))
    }

    /// Level, descriptor, PFN, permissions and physical address of the end of a walk.
    fn translate(&self, py: Python<'_>, va: u64) -> PyResult<Walked> {
        guarded(py, || {
            let Some(walk) = self.live.translate(Va(va)) else {
                return Err(Error::Spec(format!("{va:#x}: the walk leaves RAM")));
            };
            let permissions = walk.output.map_or("", |_| match (walk.desc.is_writable(), walk.desc.has(Attr::PXN)) {
                (true, true) => "RW NX",
                (true, false) => "RW X",
                (false, true) => "RO NX",
                (false, false) => "RO X",
            });
            let pfn = walk.output.map(|pa| self.live.kernel().geometry.pfn(pa).0);
            Ok((walk.level.0, walk.desc.0, pfn, permissions, walk.output.map(|pa| pa.0)))
        })
    }

    /// The whole text of `kernel_page_tables`.
    fn ptdump(&self, py: Python<'_>) -> PyResult<String> {
        guarded(py, || {
            let text = self.interruptibly(py, |live| {
                let kernel = live.kernel();
                let mut sink = Text(TextWriter::new(Vec::new(), kernel.layout.version, kernel.geometry.levels));
                live.ptdump(&mut sink);
                sink.0.finish()
            })?;
            let text = text.map_err(|error| Error::Spec(error.to_string()))?;
            String::from_utf8(text).map_err(|error| Error::Image(error.to_string()))
        })
    }

    /// The same text into a file, never held as a whole.
    fn write_ptdump(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        guarded(py, || {
            let to = path.clone();
            let written = self.interruptibly(py, move |live| {
                let kernel = live.kernel();
                let out = BufWriter::with_capacity(1 << 20, File::create(&to)?);
                let mut sink = Text(TextWriter::new(out, kernel.layout.version, kernel.geometry.levels));
                live.ptdump(&mut sink);
                sink.0.finish()?.flush()
            })?;
            written.map_err(|error| Error::Spec(format!("{}: {error}", path.display())))
        })
    }

    /// (physical address, level) of each table page, by address.
    fn tables(&self, py: Python<'_>) -> PyResult<Vec<(u64, i8)>> {
        guarded(py, || Ok(py.detach(|| self.sorted_tables()).into_iter().map(|(pa, level)| (pa.0, level.0)).collect()))
    }

    /// The descriptors of one table page: read-only, lent without a copy.
    fn words<'py>(this: &Bound<'py, Self>, pa: u64) -> PyResult<Bound<'py, PyArray1<u64>>> {
        guarded(this.py(), || {
            arrays::table(this, Pa(pa)).ok_or_else(|| Error::Spec(format!("{pa:#x} is no table page")))
        })
    }

    /// The words of these table pages, copied: a row for each; of what is none, zeros.
    fn rows<'py>(&self, py: Python<'py>, pas: Vec<u64>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        guarded(py, || {
            let width = self.live.kernel().geometry.entries();
            let words = py.detach(|| {
                let mut words = Vec::with_capacity(pas.len() * width);
                for pa in &pas {
                    self.copy_row(Pa(*pa), width, &mut words);
                }
                words
            });
            Ok(words.into_pyarray(py).reshape([pas.len(), width])?)
        })
    }

    /// Every table page, copied: addresses, levels, words.
    fn image_arrays<'py>(&self, py: Python<'py>) -> PyResult<ImageArrays<'py>> {
        guarded(py, || {
            let width = self.live.kernel().geometry.entries();
            let (pa, level, words) = py.detach(|| {
                let tables = self.sorted_tables();
                let mut words = Vec::with_capacity(tables.len() * width);
                for (pa, _) in &tables {
                    self.copy_row(*pa, width, &mut words);
                }
                let (pa, level): (Vec<u64>, Vec<u8>) = tables.iter().map(|(pa, level)| (pa.0, level.0 as u8)).unzip();
                (pa, level, words)
            });
            let rows = pa.len();
            let words = words.into_pyarray(py).reshape([rows, width])?;
            Ok((pa.into_pyarray(py), level.into_pyarray(py), words))
        })
    }
}

/// Of every operation that a document may name: name, what it does, and its fields, each with its type and whether it
/// may be left out.
#[pyfunction]
pub fn operations(py: Python<'_>) -> PyResult<Vec<OperationRow>> {
    let fields = |row: &Row| row.fields.iter().map(|f| (f.name, f.kind, f.optional)).collect();
    let about = |row: &Row| row.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let rows = Operation::ROWS.iter().filter(|row| !row.internal);
    guarded(py, || Ok(rows.map(|row| (row.name, about(row), fields(row))).collect()))
}

type OperationRow = (&'static str, String, Vec<(&'static str, &'static str, bool)>);
