//! Frames taken several at once are those that would be taken one by one.
#![cfg(not(loom))]

use proptest::prelude::*;
use vmemmap_arch::{Alloc, Cpu, Frame, FrameKind, Geometry, Granule, Pa, Zone};
use vmemmap_machine::{Machine, MachineConfig, RamRange};

/// Three chunks and a part of one.
const FRAMES: u64 = 3 * 512 + 100;

fn machine() -> Machine {
    let geometry = Geometry::new(Granule::K4, 48).unwrap();
    let ram = vec![RamRange { start: Pa(1 << 30), bytes: FRAMES << 12, boot: true }];
    Machine::new(&MachineConfig { geometry, ram, cpus: 2, vars: 0, root: None, seed: 1 }).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Take {
        count: usize,
        top_down: bool,
    },
    /// Every so manieth of those that are held, from one on.
    Give {
        first: usize,
        step: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1usize..700, any::<bool>()).prop_map(|(count, top_down)| Step::Take { count, top_down }),
        1 => (1usize..12, any::<bool>()).prop_map(|(count, top_down)| Step::Take { count, top_down }),
        2 => (0usize..70, 1usize..70).prop_map(|(first, step)| Step::Give { first, step }),
    ]
}

/// What the frames of both are by a view from outside.
fn state(m: &Machine) -> impl PartialEq + std::fmt::Debug {
    let frames: Vec<_> = (0..FRAMES).map(|n| m.frame_info(Pa((1 << 30) + (n << 12)))).collect();
    (frames, m.frames_free(), m.frames_total())
}

proptest! {
    /// Also where another CPU exists, whose presence makes states change by compare-and-exchange.
    #[test]
    fn frames_taken_several_at_once_are_those_taken_one_by_one(
        steps in prop::collection::vec(step(), 1..12),
        alone in any::<bool>(),
    ) {
        let (several, single) = (machine(), machine());
        let (cpu, other) = (several.cpu(0), single.cpu(0));
        let _second = (!alone).then(|| several.cpu(1));
        let mut held: Vec<Frame<()>> = Vec::new();
        for step in steps {
            match step {
                Step::Take { count, top_down } => {
                    let kind = FrameKind::Vmemmap;
                    let request = Alloc { order: 0, kind, zone: Zone::Normal, at: None, may_sleep: true, top_down };
                    let mut got = Vec::new();
                    let taken = cpu.alloc_each(request, count, |frame| got.push(frame));
                    let want: Vec<_> = (0..count).map_while(|_| other.alloc(request)).collect();
                    prop_assert_eq!(taken, got.len());
                    prop_assert_eq!(&got, &want);
                    held.extend(got);
                }
                Step::Give { first, step } => {
                    let mut n = 0;
                    held.retain(|&frame| {
                        let given = n >= first && (n - first).is_multiple_of(step);
                        n += 1;
                        if given {
                            cpu.free(frame, 0, FrameKind::Vmemmap);
                            other.free(frame, 0, FrameKind::Vmemmap);
                        }
                        !given
                    });
                }
            }
            prop_assert_eq!(state(&several), state(&single));
        }
        drop((cpu, other));
        prop_assert_eq!(several.counters(), single.counters());
        prop_assert_eq!((several.violation_count(), single.violation_count()), (0, 0));
    }
}
