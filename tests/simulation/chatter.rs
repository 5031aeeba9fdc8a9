//! Talk between the cores in every run: two clients on different cores write to each other by id, whatever else happens.
//!
//! What one hears from the other are numbers, and they only rise: none twice, none out of order. None may be missing but
//! those of which the sender was told so, or that were under way when somebody's connection ended.

use ringwire::engine::sim::{Client, Rng};

use crate::wire::{self, CLOSE, Event, Reader, TEXT};

/// How many numbers each says.
const SAYS: usize = 6;

pub struct Chatter {
    client: Client,
    reader: Reader,
    rng: Rng,
    pub id: Option<String>,
    pub said: usize,
    pub heard: Vec<usize>,
    close_sent: bool,
    server_closed: bool,
    /// Its connection has ended.
    pub is_over: bool,
}

impl Chatter {
    pub fn new(client: Client, rng: Rng) -> Chatter {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        client.send(&wire::request("/direct", key));
        Chatter {
            client,
            reader: Reader::new(key),
            rng,
            id: None,
            said: 0,
            heard: Vec::new(),
            close_sent: false,
            server_closed: false,
            is_over: false,
        }
    }

    /// Whether a core has taken its connection.
    pub fn was_accepted(&self) -> bool {
        self.client.is_accepted()
    }

    /// Whether it has said everything and heard everything that `other` said.
    pub fn is_through(&self, other: &Chatter) -> bool {
        self.is_over || other.is_over || (self.said == SAYS && self.heard.len() == other.said)
    }

    /// Reads, and sometimes says the next number to whoever has `id`. `may_be_dropped`: the server may end a healthy
    /// connection without a Close.
    pub fn step(&mut self, id: Option<&str>, may_be_dropped: bool) -> Result<(), String> {
        if self.is_over {
            return Ok(());
        }
        self.reader.push(&self.client.received());
        loop {
            match self.reader.next() {
                Ok(Some(event)) => self.hear(event, may_be_dropped)?,
                Ok(None) => break,
                Err(why) if may_be_dropped && wire::is_refusal(&why) => {
                    self.client.close();
                    self.is_over = true;
                    return Ok(());
                }
                Err(why) => return Err(why),
            }
        }
        if self.client.saw_fin() || self.client.saw_reset() {
            self.is_over = true;
            let excused = self.server_closed || self.client.was_broken() || may_be_dropped;
            let state = self.state();
            self.client.close();
            return if excused { Ok(()) } else { Err(format!("ended without a Close: {state}")) };
        }
        if let Some(id) = id
            && self.said < SAYS
            && !self.close_sent
            && self.rng.chance(0.2)
        {
            let text = format!("to {id} {}", self.said);
            self.said += 1;
            self.frame(TEXT, text.as_bytes());
        }
        Ok(())
    }

    fn hear(&mut self, event: Event, may_be_dropped: bool) -> Result<(), String> {
        match event {
            Event::Message(message) => {
                let text = String::from_utf8(message.payload).map_err(|_| "a text that is none")?;
                if let Some(id) = text.strip_prefix("id ") {
                    self.id = Some(id.to_owned());
                    return Ok(());
                }
                let number = text.parse().map_err(|_| format!("{text:?} where a number was due"))?;
                if self.heard.last().is_some_and(|last| *last >= number) {
                    return Err(format!("a chatter heard {number} after {:?}", self.heard));
                }
                self.heard.push(number);
            }
            Event::Close(code) => {
                let is_answer = self.close_sent && code == Some(1000);
                let is_drop = may_be_dropped && code == Some(1001);
                if !is_answer && !is_drop {
                    let reason = self.reader.close_reason();
                    return Err(format!("a chatter got a Close that nothing has earned: {code:?} {reason:?}"));
                }
                self.server_closed = true;
                self.say_goodbye(code.unwrap_or(1000));
            }
            Event::Ping(payload) if !self.close_sent => self.frame(wire::PONG, &payload),
            Event::Ping(_) => {}
            Event::Pong(_) => return Err(String::from("a pong to a chatter, which sends no pings")),
        }
        Ok(())
    }

    /// What it is waiting for, for messages.
    pub fn state(&self) -> String {
        let Chatter { client, id, said, heard, close_sent, server_closed, .. } = self;
        let (unsent, reset) = (client.unsent(), client.saw_reset());
        format!(
            "chatter {client:?}, {id:?}: said {said}, heard {heard:?}, {unsent} unsent, close sent {close_sent}, \
             got {server_closed}, reset {reset}"
        )
    }

    pub fn say_goodbye(&mut self, code: u16) {
        if !self.close_sent && !self.is_over {
            self.frame(CLOSE, &code.to_be_bytes());
            self.close_sent = true;
        }
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        wire::frame(&mut bytes, true, opcode, payload, &mut self.rng);
        self.client.send(&bytes);
    }
}
