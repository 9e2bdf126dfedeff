//! One target, named by `TIDINGS_FUZZ_TARGET`, under libFuzzer.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("TIDINGS_FUZZ_TARGET").unwrap_or_default();
        tidings_fuzz::target(&name).unwrap_or_else(|| panic!("TIDINGS_FUZZ_TARGET={name} is no target"))
    });
    target(data);
});
