#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vmemmap_fuzz::sequential::run(data);
});
