//! A response on its way out, as hooks see it.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::proto::http::Header;
use crate::shard::service::Reply;

/// A response on its way out, and what it answers: what [`Group::on_response`](crate::Group::on_response) sees.
pub struct Answered<'a> {
    pub(crate) asked: Option<(&'a str, &'a str)>,
    pub(crate) fields: &'a [Header<'a>],
    pub(crate) reply: &'a mut Reply,
    pub(crate) latency: Duration,
}

impl Answered<'_> {
    /// The request's method; `None` if the request's head was not understood, or is not complete.
    pub fn method(&self) -> Option<&str> {
        self.asked.map(|(method, _)| method)
    }

    /// The request's path as it was sent; `None` as of [`Answered::method`].
    pub fn path(&self) -> Option<&str> {
        self.asked.map(|(_, path)| path)
    }

    /// The first value of a field of the request, if it is text.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).and_then(|field| {
            let text = str::from_utf8(field.value).ok()?;
            Some(text.trim())
        })
    }

    /// The response's status; 101 of a WebSocket that is about to open.
    pub fn status(&self) -> StatusCode {
        self.reply.status
    }

    /// The first value of a field of the response. Date, Content-Length and Connection are set behind this.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.reply.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The fields of the response.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.reply.headers.iter().map(|(name, value)| (name, value))
    }

    /// Bytes of the response's body.
    pub fn body_len(&self) -> usize {
        self.reply.body.len()
    }

    /// Sets a field of the response, in the place of all that it has of the name.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.reply.headers.retain(|(known, _)| *known != name);
        self.reply.headers.push((name, value));
    }

    /// Adds a field to the response, beside those that it has of the name.
    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.reply.headers.push((name, value));
    }

    /// How long the answer has taken since the request was complete, to the precision of the core's tick; zero for what the
    /// server has refused by itself.
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
