//! A service that does as little as can be, and ends its core when it is told to: the failure that no guard catches.

use std::any::Any;

use ringwire::Hub;
use ringwire::hub::CoreHub;
use ringwire::proto::Incoming;
use ringwire::shard::service::{Accept, Answer, Ended, Inbound, Reply, Service};

/// What a client sends for it.
pub(crate) const DIE: &str = "die";

pub(crate) struct Frail;

impl Frail {
    pub(crate) fn new(_: &mut CoreHub, _: Hub) -> Frail {
        Frail
    }
}

impl Service for Frail {
    fn request(&mut self, _: &mut CoreHub, _: u32, _: u32, request: &Inbound<'_, '_>) -> Answer {
        match request.head.path() {
            "/" => Answer::Response(Reply::json(http::StatusCode::OK, "{}")),
            _ => Answer::WebSocket(Accept::default()),
        }
    }

    fn open(&mut self, _: &mut CoreHub, _: u32, _: Option<Box<dyn Any>>) {}

    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        assert_ne!(message.payload.as_slice(), DIE.as_bytes(), "on purpose");
        let _ = hub.send_incoming(slot, message);
    }

    fn close(&mut self, _: &mut CoreHub, _: u32, _: &Ended) {}
}
