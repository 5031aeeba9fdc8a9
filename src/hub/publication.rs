//! A message that is published, as it goes from core to core, and by the bridge.

use std::sync::Arc;

use super::delivery::{Delivery, Tally};
use super::id::ConnectionId;
use crate::outbox::{FrameBuf, Key, Outbox, Outgoing};

/// A message for a set of connections: what it is, who is left out, and who waits for what becomes of it. To whom it is, and
/// whether it goes on to other machines, is said by the letter that carries it.
///
/// ```
/// use ringwire::hub::{Delivery, Publication, Tally};
/// use ringwire::outbox::FrameBuf;
/// use ringwire::proto::frame::Opcode;
///
/// let (tally, answer) = Tally::new();
/// let publication = Publication { tally: Some(tally), ..FrameBuf::new(Opcode::Text, b"hi").into() };
/// publication.tell(Delivery::default());
/// drop(publication);
/// assert_eq!(answer.recv(), Ok(Delivery::default()));
/// ```
#[derive(Clone, Debug)]
pub struct Publication {
    /// The message.
    pub frame: FrameBuf,
    /// Its key, where only the latest with the same one matters.
    pub key: Option<Key>,
    /// Who is not to get it.
    pub except: Option<ConnectionId>,
    /// Where the answers are added.
    pub tally: Option<Arc<Tally>>,
}

impl Publication {
    /// A core's message, as a frame of its own.
    pub(super) fn of(
        outbox: &mut Outbox,
        message: &mut Outgoing<'_>,
        except: Option<ConnectionId>,
        tally: Option<Arc<Tally>>,
    ) -> Publication {
        Publication { frame: outbox.share(message).clone(), key: message.key(), except, tally }
    }

    /// Tells whoever waits what has become of it in one place.
    pub fn tell(&self, delivery: Delivery) {
        if let Some(tally) = &self.tally {
            tally.add(delivery);
        }
    }
}

/// To everybody who is meant, without a key, and nobody waits.
impl From<FrameBuf> for Publication {
    fn from(frame: FrameBuf) -> Publication {
        Publication { frame, key: None, except: None, tally: None }
    }
}
