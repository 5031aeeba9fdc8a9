//! What may go wrong in a test, and how often.

use std::time::Duration;

use crate::engine::sim;
use crate::engine::sim::Fault;

/// What goes wrong on connections and rings, and how often: the probabilities are of each time that it could happen.
///
/// Chance comes from the test's seed alone, so a run under faults is repeated by its seed. Whatever these faults do, an app
/// must give the same answers, as long as the connection lives: only [`Faults::resets`] ends any.
///
/// ```
/// use ringwire::testing::{Faults, TestServer};
/// use ringwire::{App, Message, Socket};
///
/// let faults = Faults::none().short_sends(0.5).split_receives(0.5);
/// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
/// let server = TestServer::builder().faults(faults).seed(7).start(echo);
/// let client = server.connect("/echo");
/// client.send("whole all the same");
/// client.expect_text("whole all the same");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Faults(pub(super) sim::Faults);

impl Default for Faults {
    fn default() -> Faults {
        Faults::none()
    }
}

impl Faults {
    /// Nothing goes wrong.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none()).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// assert_eq!(server.faults_injected(), 0);
    /// ```
    pub fn none() -> Faults {
        Faults(sim::Faults::none())
    }

    /// Everything that connections survive, at once and often: what is sent and received comes in pieces, late and in another
    /// order between connections, buffers run out, cores are woken late, accepting fails and is tried again.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::harsh()).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// ```
    pub fn harsh() -> Faults {
        let deadly = [
            Fault::BrokenSend,
            Fault::Reset,
            Fault::TimedOut,
            Fault::SendNoMemory,
            Fault::AcceptAborted,
            Fault::ClockJump,
        ];
        Faults(deadly.into_iter().fold(sim::Faults::harsh(), |faults, fault| faults.with(fault, 0.0)))
    }

    fn with(self, kinds: &[Fault], probability: f64) -> Faults {
        Faults(kinds.iter().fold(self.0, |faults, &fault| faults.with(fault, probability)))
    }

    /// Sends of the server are cut short, or find no room although there is some.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none().short_sends(0.5)).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// ```
    ///
    /// # Panics
    /// If `probability` is not within 0 to 1, here and below.
    pub fn short_sends(self, probability: f64) -> Faults {
        self.with(&[Fault::ShortSend, Fault::SpuriousEagain, Fault::DelayedSend], probability)
    }

    /// What the server receives comes in parts, down to single bytes.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none().split_receives(0.5)).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// ```
    pub fn split_receives(self, probability: f64) -> Faults {
        self.with(&[Fault::ShortRecv, Fault::SingleByte, Fault::RecvIntoShort], probability)
    }

    /// What happens is noticed late, at most [`Faults::delay_max`], and in another order: on connections, and between cores.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none().delays(0.5)).start(echo);
    /// let client = server.connect("/echo");
    /// (0..10).for_each(|number| client.send(number.to_string()));
    /// (0..10).for_each(|number| client.expect_text(&number.to_string()));
    /// ```
    pub fn delays(self, probability: f64) -> Faults {
        self.with(&[Fault::Postponed, Fault::Reordered, Fault::DoorbellLate], probability)
    }

    /// Receives find no buffer.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let server = TestServer::builder().faults(Faults::none().lacking_buffers(0.5)).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("x".repeat(10_000));
    /// client.expect_text(&"x".repeat(10_000));
    /// ```
    pub fn lacking_buffers(self, probability: f64) -> Faults {
        self.with(&[Fault::NoBuffersOne, Fault::NoBuffersAll], probability)
    }

    /// Connections break in the middle of something, and both ends see a reset.
    ///
    /// ```
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_message(|_, message| message.into_owned())));
    /// let client = server.connect("/");
    /// server.set_faults(Faults::none().resets(1.0));
    /// client.send("hello");
    /// client.expect_end();
    /// ```
    pub fn resets(self, probability: f64) -> Faults {
        self.with(&[Fault::Reset], probability)
    }

    /// By how much anything is late at most; a millisecond unless this is called.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ringwire::testing::{Faults, TestServer};
    /// use ringwire::{App, Message, Socket};
    ///
    /// let echo = || App::new().ws("/echo", |socket: &mut Socket, message: Message| socket.send(message));
    /// let faults = Faults::none().delays(1.0).delay_max(Duration::from_millis(200));
    /// let server = TestServer::builder().faults(faults).start(echo);
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// client.expect_text("hello");
    /// assert!(server.now() > Duration::from_millis(1));
    /// ```
    pub fn delay_max(mut self, delay: Duration) -> Faults {
        self.0.delay_ns_max = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self
    }
}
