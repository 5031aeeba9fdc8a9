//! The test kit, `ringwire::testing`: what it runs, what it finds, and that it always sees the same. The examples that are
//! tested by it alone are here, too.

#![forbid(unsafe_code)]

mod bugs;
mod chance;
mod chat;
mod clients;
mod history;
mod modes;
mod own_types;
mod servers;
mod speed;
mod time;

/// With the tests that are in it.
#[allow(dead_code)]
#[path = "../../examples/tested_app.rs"]
mod tested_app;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a piece of a test panics with.
#[track_caller]
fn failure(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("it should have failed");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_owned(),
    }
}
