//! A small explored machine with one PTE table, driven operation by operation.
#![allow(dead_code)]

use std::cell::RefCell;

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{
    Alloc, Barrier, Cpu, Desc, Frame, FrameKind, Geometry, Granule, Invariant, Kind, Level, Order, Pa, Slot, Va, Zone,
};
use vmemmap_machine::explored::{Direct, World, WorldOptions};
use vmemmap_machine::op::{Op, Tok};
use vmemmap_machine::op_cpu::OpCpu;
use vmemmap_machine::{MachineConfig, RamRange};

pub const BASE: Va = Va(0xffff_ffff_0000_0000);

pub struct Bench {
    pub world: RefCell<World>,
    pub g: Geometry,
    pub pmd: Frame<Tok>,
    pub pte: Frame<Tok>,
    /// Frames mapped at pages 0, 1, 2… of BASE, read-write.
    pub mapped: Vec<Frame<Tok>>,
    /// Frames that nobody maps.
    pub spare: Vec<Frame<Tok>>,
}

pub fn request(kind: FrameKind) -> Alloc {
    Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down: false }
}

impl Bench {
    pub fn new(options: WorldOptions) -> Self {
        let g = Geometry::new(Granule::K4, 39).expect("4K, 39 bits");
        let ram = vec![
            RamRange { start: Pa(1 << 30), bytes: 64 << 20, boot: true },
            RamRange { start: Pa(2 << 30), bytes: 128 << 20, boot: false },
        ];
        let config = MachineConfig { geometry: g, ram, cpus: 3, vars: 8, root: None, seed: 0 };
        let options = WorldOptions { pool_frames: 64, ..options };
        let world = RefCell::new(World::new(&config, options).expect("a machine"));
        let (pmd, pte, mapped, spare);
        {
            let cpu = OpCpu::new(Direct::new(&world, 0));
            let table = || cpu.alloc(request(FrameKind::Table)).expect("memory");
            let frame = |_| cpu.alloc(request(FrameKind::Vmemmap)).expect("memory");
            (pmd, pte) = (table(), table());
            mapped = (0..4).map(frame).collect::<Vec<_>>();
            spare = (0..4).map(frame).collect::<Vec<_>>();
            let root = cpu.root();
            let write = |table: Frame<Tok>, level: Level, desc: Desc, va: Va| {
                cpu.write(
                    Slot { table: table.pa, index: g.index(va, level), level, tok: table.tok },
                    desc,
                    Order::Plain,
                );
            };
            write(root, Level::PUD, g.descriptor(pmd.pa, prot::TABLE), BASE);
            write(pmd, Level::PMD, g.descriptor(pte.pa, prot::TABLE), BASE);
            for (i, f) in (0..).zip(&mapped) {
                write(pte, Level::PTE, g.descriptor(f.pa, prot::PAGE_KERNEL), page(i));
            }
            cpu.barrier(Barrier::DsbIsh);
        }
        world.borrow_mut().mark();
        Self { world, g, pmd, pte, mapped, spare }
    }
    pub fn cpu(&self, actor: u8) -> OpCpu<Direct<'_>> {
        OpCpu::new(Direct::new(&self.world, actor))
    }
    pub fn pte(&self, i: u64) -> Slot<Tok> {
        Slot { table: self.pte.pa, index: self.g.index(page(i), Level::PTE), level: Level::PTE, tok: self.pte.tok }
    }
    pub fn pmd(&self) -> Slot<Tok> {
        Slot { table: self.pmd.pa, index: self.g.index(BASE, Level::PMD), level: Level::PMD, tok: self.pmd.tok }
    }
    pub fn rw(&self, frame: Frame<Tok>) -> Desc {
        self.g.descriptor(frame.pa, prot::PAGE_KERNEL)
    }
    pub fn ro(&self, frame: Frame<Tok>) -> Desc {
        self.g.descriptor(frame.pa, prot::PAGE_KERNEL_RO)
    }
    pub fn outcomes(&self, actor: u8, op: Op) -> u16 {
        self.world.borrow_mut().outcomes(actor, &op)
    }
    pub fn execute(&self, actor: u8, op: Op, outcome: u16) -> u64 {
        self.world.borrow_mut().execute(actor, &op, outcome).value
    }
    pub fn broken(&self) -> Vec<u8> {
        self.world.borrow().violated().iter().map(Invariant::number).collect()
    }
    pub fn broke(&self, invariant: Invariant) -> bool {
        self.broken().contains(&invariant.number())
    }
    pub fn is_table(&self, desc: Desc) -> bool {
        matches!(self.g.kind(desc, Level::PMD), Kind::Table(_))
    }
}

pub fn page(i: u64) -> Va {
    BASE.plus(i << 12)
}
