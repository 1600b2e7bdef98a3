#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmemmap_fuzz::ptdump_text::run(data));
