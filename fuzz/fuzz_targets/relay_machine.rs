#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pollux_mq_fuzz::relay_machine::run(input));
