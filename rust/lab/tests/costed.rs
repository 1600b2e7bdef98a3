//! The costed machine: the same work takes the same modelled time, and every rule of its costs is noticed.

use serde_json::{Value, json};
use vmemmap_lab::costed::run;
use vmemmap_machine::costed::Costs;

/// Pages allocated, freed and demoted on so many CPUs, with every latency 10 ns but those given.
fn work(cpus: u16, seed: u64, policies: &Value, kernel: &str, broadcast: &str, latencies: &[(&str, f64)]) -> Value {
    let mut costs: serde_json::Map<String, Value> =
        Costs::NAMES.iter().map(|(name, _)| ((*name).to_owned(), json!(10.0))).collect();
    costs.insert("irq_masked_every".into(), json!(0.0));
    for (name, ns) in latencies {
        costs.insert((*name).to_owned(), json!(ns));
    }
    let document = json!({
        "machine": { "granule": 4096, "va_bits": 48, "kernel": kernel, "boot": [[0x4000_0000u64, 3u64 << 30]],
            "policies": policies },
        "costs": costs, "broadcast": broadcast, "cpus": cpus, "seed": seed,
        "phases": [
            { "name": "allocate", "operations": [{ "op": "nr_hugepages", "hstate": 1, "count": 8 }] },
            { "name": "free", "operations": [{ "op": "nr_hugepages", "hstate": 1, "count": 0 }] },
            { "name": "large", "operations": [
                { "op": "hugetlb_alloc", "hstate": 3, "at": null }, { "op": "hugetlb_free", "hstate": 3, "at": null },
                { "op": "hugetlb_alloc", "hstate": 3, "at": null } ] },
            { "name": "demote", "operations": [{ "op": "hugetlb_demote", "hstate": 3, "count": 1 }] },
        ],
    });
    let mut answer: Value = serde_json::from_str(&run(&document.to_string()).expect("runs")).expect("JSON");
    answer["seconds"] = json!(0);
    answer
}

fn total(answer: &Value) -> f64 {
    let phases = answer["phases"].as_array().expect("phases");
    phases.iter().flat_map(|p| p["latencies_ns"].as_array().expect("times")).map(|t| t.as_f64().expect("ns")).sum()
}

fn count(answer: &Value, counter: &str) -> u64 {
    let phases = answer["phases"].as_array().expect("phases");
    phases.iter().map(|p| p["counters"][counter].as_u64().expect("a count")).sum()
}

#[test]
fn a_seed_gives_one_answer_and_another_seed_another() {
    let masked = [("irq_masked_every", 4000.0), ("irq_masked_for", 2000.0)];
    let policies = json!({ "update": "bbm-ipi-pause", "ipi": "irq" });
    let of = |seed| work(16, seed, &policies, "6.12", "dvm", &masked);
    assert_eq!(of(7), of(7));
    assert_ne!(total(&of(7)), total(&of(8)));
}

/// Without a latency the time is shorter: no rule costs nothing by mistake. Each with a way of doing it that pays for
/// it.
#[test]
fn every_latency_is_paid_somewhere() {
    let policies = [
        ("dvm", "6.12", json!({})),
        ("dvm", "6.1", json!({ "update": "bbm-ipi-pause", "split": "bbm-ipi-pause" })),
        ("dvm", "6.1", json!({ "update": "bbm-stop-machine" })),
        ("ipi", "6.12", json!({ "batch": "none" })),
        ("dvm", "7.3", json!({ "update": "read-only-first", "head": "keep" })),
    ];
    let all = |latencies: &[(&str, f64)]| -> f64 {
        policies.iter().map(|(broadcast, kernel, p)| total(&work(4, 1, p, kernel, broadcast, latencies))).sum()
    };
    let base = all(&[]);
    // Paid only by actors that queue, fault, or mask interrupts, or by invalidates of one CPU.
    let elsewhere = ["lock_handoff", "fault", "irq_masked_every", "irq_masked_for", "ipi_return"];
    for (name, _) in Costs::NAMES.iter().filter(|(name, _)| !elsewhere.contains(name)) {
        let without = all(&[(name, 0.0)]);
        assert!(without < base, "{name} costs nothing: {without} ns against {base} ns");
    }
}

/// What is counted is what the kernel did, whatever it costs; what more CPUs cost depends on how they are reached.
#[test]
fn counts_do_not_depend_on_latencies_and_times_grow_with_cpus_where_they_must() {
    let store = json!({});
    let pause = json!({ "update": "bbm-ipi-pause" });
    let cheap = work(2, 0, &store, "6.1", "dvm", &[("dvm_operation", 0.0), ("frame_alloc", 500.0)]);
    for counter in ["tlbi", "dsb", "splits", "writes", "grace_periods", "ipi"] {
        assert_eq!(count(&cheap, counter), count(&work(2, 0, &store, "6.1", "dvm", &[]), counter), "{counter}");
    }
    for (policies, broadcast, latency) in
        [(&store, "dvm", "dvm_per_cpu"), (&store, "ipi", "ipi_send"), (&pause, "dvm", "ipi_send")]
    {
        let of = |cpus, ns| total(&work(cpus, 0, policies, "6.1", broadcast, &[("line_transfer", 0.0), (latency, ns)]));
        assert!(of(64, 10.0) > of(2, 10.0), "{latency}");
    }
    // One CPU has nobody to wait for.
    let alone = work(1, 0, &pause, "6.1", "dvm", &[]);
    assert_eq!((count(&alone, "ipi"), alone["violations"].as_u64()), (0, Some(0)));
}

/// A grace period for each page without a batch; two for a batch (R31 of the corpus: 513 and 2).
#[test]
fn a_demotion_waits_for_513_grace_periods_page_by_page_and_for_two_in_a_batch() {
    let of = |policies: Value| {
        let answer = work(2, 0, &policies, "6.12", "dvm", &[]);
        let phases = answer["phases"].as_array().expect("phases").clone();
        phases.last().expect("demote")["counters"]["grace_periods"].as_u64()
    };
    assert_eq!(of(json!({ "batch": "none" })), Some(513));
    assert_eq!(of(json!({})), Some(2));
}

#[test]
fn a_hole_lasts_from_the_break_to_the_make() {
    let hole = |policies: Value| {
        let answer = work(2, 0, &policies, "6.1", "dvm", &[("dvm_operation", 1000.0)]);
        answer["phases"][0]["hole_longest_ns"].as_f64().expect("ns")
    };
    assert_eq!(hole(json!({})), 0.0);
    assert_eq!(hole(json!({ "update": "read-only-first" })), 0.0);
    // At least the invalidates of one page, and of seven.
    let (each, whole) = (hole(json!({ "update": "bbm-each" })), hole(json!({ "update": "bbm" })));
    assert!(each >= 1000.0 && whole >= 7000.0, "{each} ns, {whole} ns");
}

/// R5e on the clock: two pausers, interrupts masked by whoever waits for the lock, a plain IPI.
#[test]
fn two_pausers_with_a_plain_ipi_wait_for_ever() {
    let costs: serde_json::Map<String, Value> =
        Costs::NAMES.iter().map(|(name, _)| ((*name).to_owned(), json!(10.0))).collect();
    let of = |ipi: &str| {
        let document = json!({
            "machine": { "granule": 4096, "va_bits": 48, "kernel": "6.1", "boot": [[0x4000_0000u64, 4u64 << 30]],
                "policies": { "update": "bbm-ipi-pause", "ipi": ipi } },
            "costs": costs, "broadcast": "dvm", "cpus": 4, "seed": 0,
            "phases": [{ "name": "allocate", "operations":
                vec![json!({ "op": "hugetlb_alloc", "hstate": 1, "at": null }); 20] }],
            "beside": [[
                { "op": "hugetlb_alloc", "hstate": 1, "at": null }, { "op": "hugetlb_free", "hstate": 1, "at": null }
            ]],
        });
        run(&document.to_string()).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(of("pseudo-nmi"), Ok(()));
    let stuck = of("irq").expect_err("both wait");
    assert!(stuck.contains("everybody waits"), "{stuck}");
}
