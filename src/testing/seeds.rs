//! Which seeds a test runs with.

/// The variable that repeats one seed.
pub(super) const SEED_VARIABLE: &str = "RINGWIRE_TEST_SEED";
/// The variable that says how many seeds to try.
const SEEDS_VARIABLE: &str = "RINGWIRE_TEST_SEEDS";

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// The seed that the environment asks for; 0 if it asks for none.
pub(super) fn usual() -> u64 {
    variable(SEED_VARIABLE).unwrap_or(0)
}

/// The seeds to try something with: 0 to `count`, or as many as `RINGWIRE_TEST_SEEDS` says, or `RINGWIRE_TEST_SEED` alone.
///
/// ```
/// use ringwire::testing::{Faults, TestServer, seeds};
/// use ringwire::{App, Message, Socket};
///
/// for seed in seeds(20) {
///     let server = TestServer::builder().seed(seed).faults(Faults::harsh()).cores(2).start(|| {
///         App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message))
///     });
///     let client = server.connect("/echo");
///     client.send("hello");
///     client.expect_text("hello");
/// }
/// ```
///
/// # Panics
/// If one of the variables is set and is not a number.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    match variable(SEED_VARIABLE) {
        Some(seed) => seed..=seed,
        None => match variable(SEEDS_VARIABLE).unwrap_or(count) {
            // A range that is empty.
            #[expect(clippy::reversed_empty_ranges, reason = "no seeds are asked for")]
            0 => 1..=0,
            count => 0..=count - 1,
        },
    }
}
