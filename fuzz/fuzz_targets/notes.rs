#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wigwag::fuzzing::target::notes(data));
