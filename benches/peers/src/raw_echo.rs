//! Bare echo.
fn main() {}
