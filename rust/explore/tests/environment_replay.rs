//! Choices of the environment in a trace are asked for again by what they are.

use serde_json::{Value, json};
use vmemmap_explore::question;

const SECTION: u64 = 128 << 20;
const PLACE: u64 = 65 << 30;

/// A hugepage is optimised and given back, while one allocation may fail; the mutant forgets that the failed restore makes it surplus.
fn failing_restore() -> Value {
    let at = PLACE >> 12;
    json!({
        "format": 1, "name": "restore", "variant": "fails",
        "machine": {
            "granule": 4096, "va_bits": 48, "kernel": "6.1", "boot": [[1u64 << 30, SECTION]], "hotplug": [[PLACE, SECTION]],
            "policies": {"linear-map": "blocks", "mutant": "surplus-lost"},
        },
        "setup": [
            {"op": "memory_add", "start": PLACE, "bytes": SECTION},
            {"op": "memory_online", "start": PLACE, "bytes": SECTION},
            {"op": "hugetlb_alloc", "hstate": 1, "at": at},
        ],
        "actors": [{"name": "HugeTLB", "cpu": 0, "program": [{"op": "hugetlb_free", "hstate": 1, "at": at}]}],
        "judged": ["I24"],
        "environment": {"alloc_failures": 1},
    })
}

fn trace_of(document: &Value, invariant: &str) -> Value {
    let options = json!({"seconds": 60.0, "shorten_seconds": 1.0}).to_string();
    let mut answer = question::explore(&document.to_string(), &options, &|| false, &mut |_| {}).expect("it can be explored");
    answer["witnesses"][invariant]["trace"].take()
}

#[test]
fn a_failed_allocation_fails_again_and_is_missed_where_it_cannot() {
    let trace = trace_of(&failing_restore(), "I24");
    let alternatives: Vec<&Value> =
        trace["segments"].as_array().into_iter().flatten().flat_map(|s| s["alternatives"].as_array().into_iter().flatten()).collect();
    assert_eq!(alternatives.len(), 1, "{alternatives:?}");
    assert_eq!((&alternatives[0]["op"], &alternatives[0]["taken"]), (&json!("alloc"), &json!("fails with ENOMEM")));

    let again = question::replay(&trace.to_string(), "{}").expect("a trace");
    assert_eq!((&again["identical"], &again["fell"]), (&json!(true), &json!(true)), "{}", again["divergence"]);

    // A machine on which no allocation fails: the step that cannot go so is named.
    let mut other = trace.clone();
    other["document"]["environment"]["alloc_failures"] = json!(0);
    let refused = question::replay(&other.to_string(), "{}").expect("a trace");
    assert!(refused["divergence"]["message"].as_str().is_some_and(|m| m.contains("scenario digest")), "{}", refused["divergence"]);
    let changed = question::replay(&other.to_string(), r#"{"policies": {"mutant": "surplus-lost"}}"#).expect("a trace");
    let found = changed["divergence"]["found"].as_str().expect("it differs");
    assert!(found.ends_with("which has no alternative \"fails with ENOMEM\""), "{found}");
    // Without the seeded fault, the same failed restore is harmless.
    let fixed = question::replay(&trace.to_string(), r#"{"policies": {"mutant": "none"}, "tolerant": true}"#).expect("a trace");
    assert_eq!((&fixed["fell"], &fixed["identical"]), (&json!(false), &json!(false)));
    let failed = fixed["trace"].as_array().into_iter().flatten().filter(|s| s["taken"] == json!("fails with ENOMEM")).count();
    assert_eq!(failed, 1, "the tolerant replay takes the alternative where it meets it");
}
