//! What the fuzzer has found, each with what was wrong.
