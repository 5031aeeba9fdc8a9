//! Questions to clients: events that are to be acknowledged, `{"event":E,"data":D,"ack":N}`, and what the clients answer,
//! `{"ack":N,"data":D}` or `{"ack":N,"error":E}`.
//!
//! An answer is taken before any handler, interceptor or inbox sees it, so it comes while a handler waits for it. Of one
//! connection no more than [`OUTSTANDING_MAX`] questions are open, answers that nobody has taken among them, and the bytes
//! of those count as messages that wait for tasks do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::guard;
use crate::message::json::object;
use crate::message::{DecodeError, EncodeError, Message, RawJson};
use crate::quote::quoted;
use crate::runtime::{Sleep, sleep};

/// Questions to one connection that are not answered.
pub(crate) const OUTSTANDING_MAX: usize = 64;

/// Why an event was not acknowledged.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{AckError, App, Connection, Events};
/// use std::time::Duration;
///
/// let ask = async |socket: Connection, ()| match socket.emit_with_ack("sure?", &(), Duration::from_secs(5)).await {
///     Ok(answer) => format!("you say {answer}"),
///     Err(AckError::TimedOut) => "you say nothing".to_owned(),
///     Err(AckError::Refused(why)) => format!("you cannot say: {why}"),
///     Err(other) => other.to_string(),
/// };
/// let server = TestServer::new(move || App::new().ws("/ws", Events::new().on_async("delete", ask)));
/// let client = server.connect("/ws");
/// client.emit("delete", &());
/// client.expect_event("sure?");
/// client.expect_text("you say nothing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The client has not answered in time. An answer that comes later is discarded.
    #[error("no acknowledgement in time")]
    TimedOut,
    /// The connection is closing or has gone.
    #[error("the connection has gone")]
    Gone,
    /// The connection does not keep up, and the event was not queued.
    #[error("the event was not queued: the connection does not keep up")]
    Dropped,
    /// As many events of this connection as may be wait for their acknowledgements.
    #[error("{max} events wait for their acknowledgements already")]
    TooMany {
        /// How many may be.
        max: usize,
    },
    /// The client has answered with an error.
    #[error("the client answers with an error: {}", quoted(.0.as_str()))]
    Refused(RawJson),
    /// What the client has answered cannot be kept: see [`RawJson::parse`].
    #[error(transparent)]
    Undecodable(DecodeError),
    /// The event's data cannot be written.
    #[error(transparent)]
    Unwritten(EncodeError),
}

type Answer = Result<RawJson, AckError>;

struct Question {
    number: u64,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// A core's open questions.
pub(crate) struct Questions {
    /// By slot: of connections that have ever been asked, until they end, so that what comes late is known for what it is.
    by_slot: RefCell<HashMap<u32, Vec<Question>>>,
    /// No two questions of a core have the same number, whoever gets a slot next.
    last: Cell<u64>,
    /// Bytes that wait for tasks, of the whole core.
    core_bytes: Rc<Cell<usize>>,
}

/// An answer as it comes.
#[derive(Deserialize)]
struct Acked<'m> {
    ack: u64,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
    #[serde(borrow)]
    error: Option<&'m RawValue>,
    event: Option<IgnoredAny>,
    path: Option<IgnoredAny>,
}

impl Questions {
    pub(crate) fn new(core_bytes: Rc<Cell<usize>>) -> Questions {
        Questions { by_slot: RefCell::default(), last: Cell::new(0), core_bytes }
    }

    /// One more question to a connection: its number.
    pub(crate) fn begin(&self, slot: u32) -> Result<u64, AckError> {
        let mut by_slot = self.by_slot.borrow_mut();
        let questions = by_slot.entry(slot).or_default();
        if questions.len() >= OUTSTANDING_MAX {
            return Err(AckError::TooMany { max: OUTSTANDING_MAX });
        }
        let number = self.last.get() + 1;
        self.last.set(number);
        questions.push(Question { number, answer: None, waker: None });
        Ok(number)
    }

    /// Takes a message if it is an answer. Whoever was never asked has none to give.
    #[inline]
    pub(crate) fn take(&self, slot: u32, message: &Message<'_>) -> bool {
        !self.by_slot.borrow().is_empty() && self.take_answer(slot, message)
    }

    #[cold]
    fn take_answer(&self, slot: u32, message: &Message<'_>) -> bool {
        let mut by_slot = self.by_slot.borrow_mut();
        let Some(questions) = by_slot.get_mut(&slot) else { return false };
        let acked = if message.is_text() { object::<Acked<'_>>(message.as_bytes()).ok() } else { None };
        let Some(acked) = acked.filter(|acked| acked.event.is_none() && acked.path.is_none()) else { return false };
        let question = questions.iter_mut().find(|question| question.number == acked.ack && question.answer.is_none());
        // One that comes late or twice is nobody's.
        let Some(question) = question else { return true };
        let read = |text: &RawValue| RawJson::parse(text.get()).map_err(AckError::Undecodable);
        let answer = match acked.error {
            Some(error) => read(error).and_then(|error| Err(AckError::Refused(error))),
            None => acked.data.map_or_else(|| Ok(RawJson::default()), read),
        };
        self.core_bytes.set(self.core_bytes.get() + bytes(&answer));
        question.answer = Some(answer);
        let waker = question.waker.take();
        drop(by_slot);
        waker.into_iter().for_each(guard::wake);
        true
    }

    fn poll(&self, slot: u32, number: u64, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut by_slot = self.by_slot.borrow_mut();
        let mut questions = by_slot.get_mut(&slot);
        let place = questions.as_ref().and_then(|them| them.iter().position(|question| question.number == number));
        let (Some(questions), Some(place)) = (&mut questions, place) else { return Poll::Ready(Err(AckError::Gone)) };
        if let Some(answer) = questions[place].answer.take() {
            questions.swap_remove(place);
            self.core_bytes.set(self.core_bytes.get() - bytes(&answer));
            return Poll::Ready(answer);
        }
        let former = questions[place].waker.replace(cx.waker().clone());
        drop(by_slot);
        drop(former);
        Poll::Pending
    }

    /// Nobody waits for this answer any more.
    fn cancel(&self, slot: u32, number: u64) {
        let mut by_slot = self.by_slot.borrow_mut();
        let Some(questions) = by_slot.get_mut(&slot) else { return };
        let Some(place) = questions.iter().position(|question| question.number == number) else { return };
        let question = questions.swap_remove(place);
        drop(by_slot);
        self.forget(&question);
    }

    /// Its connection cannot be asked: it has gone, and whoever has its slot next was not asked.
    fn undo(&self, slot: u32, number: u64) {
        self.cancel(slot, number);
        let mut by_slot = self.by_slot.borrow_mut();
        if by_slot.get(&slot).is_some_and(Vec::is_empty) {
            by_slot.remove(&slot);
        }
    }

    fn forget(&self, question: &Question) {
        let held = question.answer.as_ref().map_or(0, bytes);
        self.core_bytes.set(self.core_bytes.get() - held);
    }

    /// A connection has ended.
    pub(crate) fn end(&self, slot: u32) {
        let questions = self.by_slot.borrow_mut().remove(&slot);
        for question in questions.into_iter().flatten() {
            self.forget(&question);
            question.waker.into_iter().for_each(guard::wake);
        }
    }

    /// Bytes of a connection's answers that nobody has taken.
    pub(crate) fn bytes_of(&self, slot: u32) -> usize {
        let by_slot = self.by_slot.borrow();
        let answers = by_slot.get(&slot).into_iter().flatten().filter_map(|question| question.answer.as_ref());
        answers.map(bytes).sum()
    }
}

fn bytes(answer: &Answer) -> usize {
    match answer {
        Ok(kept) | Err(AckError::Refused(kept)) => kept.as_str().len(),
        Err(_) => 0,
    }
}

/// What has the core's questions and clock.
pub(crate) trait Asker {
    fn questions(&self) -> &Questions;
    fn now_ns(&self) -> u64;
}

/// A client's answer on its way, from [`Socket::emit_with_ack`](crate::Socket::emit_with_ack) and
/// [`Connection::emit_with_ack`](crate::Connection::emit_with_ack). Await it on the connection's core; to drop it is to
/// wait no more.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, Connection, ws};
/// use std::time::Duration;
///
/// let task = async |connection: Connection| {
///     let asked = connection.emit_with_ack("name?", &(), Duration::from_secs(5));
///     let _ = connection.send("take your time");
///     asked.await.map(|name| format!("hello {name}"))
/// };
/// let server = TestServer::new(move || App::new().ws("/ws", ws().task(task)));
/// let client = server.connect("/ws");
/// let question: serde_json::Value = client.next_json();
/// client.expect_text("take your time");
/// client.send_json(&serde_json::json!({"ack": question["ack"], "data": "ann"}));
/// client.expect_text("hello \"ann\"");
/// ```
#[must_use = "await it, or emit without asking for an acknowledgement"]
pub struct Acknowledgement(State);

enum State {
    Refused(AckError),
    Waiting { asker: Rc<dyn Asker>, slot: u32, number: u64, until_ns: u64, sleep: Option<Sleep> },
    Done,
}

impl Acknowledgement {
    pub(crate) fn refused(error: AckError) -> Acknowledgement {
        Acknowledgement(State::Refused(error))
    }

    pub(crate) fn new(asker: Rc<dyn Asker>, slot: u32, number: u64, timeout: Duration) -> Acknowledgement {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = asker.now_ns().saturating_add(timeout_ns);
        Acknowledgement(State::Waiting { asker, slot, number, until_ns, sleep: None })
    }

    /// The event was not queued.
    pub(crate) fn unsent(mut self, error: AckError) -> Acknowledgement {
        if let State::Waiting { asker, slot, number, .. } = &self.0 {
            asker.questions().undo(*slot, *number);
        }
        self.0 = State::Refused(error);
        self
    }
}

impl Future for Acknowledgement {
    /// The data of the answer.
    type Output = Result<RawJson, AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            State::Waiting { asker, slot, number, until_ns, sleep: sleeping } => {
                match asker.questions().poll(*slot, *number, cx) {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => {
                        let left_ns = until_ns.saturating_sub(asker.now_ns());
                        let sleeping = sleeping.get_or_insert_with(|| sleep(Duration::from_nanos(left_ns)));
                        if Pin::new(sleeping).poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        asker.questions().cancel(*slot, *number);
                        Err(AckError::TimedOut)
                    }
                }
            }
            State::Refused(error) => Err(error.clone()),
            State::Done => Err(AckError::Gone),
        };
        self.0 = State::Done;
        Poll::Ready(answer)
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if let State::Waiting { asker, slot, number, .. } = &self.0 {
            asker.questions().cancel(*slot, *number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::borrowed;
    use crate::proto::Kind;

    fn take(questions: &Questions, slot: u32, text: &str) -> bool {
        questions.take(slot, &borrowed(Kind::Text, text.as_bytes()))
    }

    fn poll(questions: &Questions, slot: u32, number: u64) -> Poll<Answer> {
        questions.poll(slot, number, &mut Context::from_waker(Waker::noop()))
    }

    /// Kills: events and other messages that are taken for answers, answers that reach handlers, and bytes that stay counted.
    #[test]
    fn only_answers_of_those_who_were_asked_are_taken() {
        let bytes = Rc::<Cell<usize>>::default();
        let questions = Questions::new(Rc::clone(&bytes));
        assert!(!take(&questions, 0, r#"{"ack":1,"data":1}"#), "nobody was asked");
        let numbers = [0, 0, 1].map(|slot| questions.begin(slot).unwrap());
        assert!(!take(&questions, 2, r#"{"ack":1,"data":1}"#), "somebody else was asked");
        for other in
            [r#"{"event":"a","ack":1}"#, r#"{"path":"a","ack":1}"#, r#"{"ack":"1"}"#, "[1]", "1", "", r#"{"data":1}"#]
        {
            assert!(!take(&questions, 0, other), "{other}");
        }
        assert!(!questions.take(0, &borrowed(Kind::Binary, br#"{"ack":1}"#)));
        assert!(poll(&questions, 0, numbers[0]).is_pending());
        for (late, answer) in
            [(false, r#"{"ack":1,"data":[1,"a"]}"#), (true, r#"{"ack":1,"data":2}"#), (true, r#"{"ack":3}"#)]
        {
            assert!(take(&questions, 0, answer));
            assert_eq!((questions.bytes_of(0), bytes.get()), (7, 7), "{late}");
        }
        assert_eq!(poll(&questions, 0, numbers[0]), Poll::Ready(Ok(RawJson::parse(r#"[1,"a"]"#).unwrap())));
        assert!(take(&questions, 0, r#" {"error":"no", "ack":2}"#));
        assert_eq!(bytes.get(), 4);
        questions.cancel(0, numbers[1]);
        assert_eq!((bytes.get(), questions.bytes_of(0)), (0, 0));
        assert!(take(&questions, 1, r#"{"ack":3,"data":{"a":1}}"#));
        questions.end(1);
        assert_eq!((bytes.get(), poll(&questions, 1, numbers[2])), (0, Poll::Ready(Err(AckError::Gone))));
        assert!(take(&questions, 0, r#"{"ack":99}"#), "late, and known for what it is");
    }

    #[test]
    fn a_connection_has_so_many_questions_and_no_more() {
        let questions = Questions::new(Rc::default());
        let numbers: Vec<u64> = (0..OUTSTANDING_MAX).map(|_| questions.begin(7).unwrap()).collect();
        assert_eq!(questions.begin(7), Err(AckError::TooMany { max: 64 }));
        // One that was answered is in its place until somebody takes it.
        assert!(take(&questions, 7, &format!(r#"{{"ack":{}}}"#, numbers[5])));
        assert!(questions.begin(7).is_err() && questions.begin(8).is_ok());
        assert_eq!(poll(&questions, 7, numbers[5]), Poll::Ready(Ok(RawJson::default())));
        assert!(questions.begin(7).is_ok());
    }

    #[test]
    fn an_answer_that_cannot_be_kept_is_an_error() {
        let questions = Questions::new(Rc::default());
        let number = questions.begin(0).unwrap();
        assert!(take(&questions, 0, &format!(r#"{{"ack":{number},"data":1e400}}"#)));
        assert!(matches!(poll(&questions, 0, number), Poll::Ready(Err(AckError::Undecodable(_)))));
    }
}
