//! Waiting for an event instead of asking again and again: a step whose reply is a stream of events.
//!
//! Each wait comes to what one question comes to: an attempt with a reply, whose body is the data of the event. So a ticket
//! is judged the same way however its buyer learns of it, and so are checks and captures.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Attempt, Buyer, Walk, understand};
use crate::history::{Micros, Role};
use crate::load::client::{Broken, Connection, Opened, Reply};
use crate::load::sse::{Event, Parser};
use crate::scenario::journey::{CompiledStep, EventStream};

/// A stream that a buyer listens to.
#[derive(Debug, Default)]
pub(crate) struct Following {
    parser: Parser,
    events: VecDeque<Event>,
    connected: bool,
}

/// What a wait came to.
#[derive(Debug)]
pub(crate) struct Told {
    status: u16,
    retry_after_s: Option<u32>,
    location: Option<String>,
    /// Empty if it was an event.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Told {
    /// As a reply: that of a question, or the data of an event.
    pub fn reply(&self) -> Reply<'_> {
        let Told { status, retry_after_s, location, head, body } = self;
        Reply { status: *status, retry_after_s: *retry_after_s, location: location.as_deref(), head, body }
    }
}

impl Following {
    /// How long to wait before the next event is waited for.
    pub fn pause(&self, otherwise: Duration) -> Duration {
        if self.connected { Duration::ZERO } else { self.parser.retry().unwrap_or(otherwise) }
    }

    /// Waits for an event that the step is about, and asks for the stream (again) where there is none.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn next(
        &mut self,
        connection: &mut Connection,
        request: &[u8],
        (step, stream): (&CompiledStep, &EventStream),
        limit: Duration,
    ) -> Result<Told, Broken> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if is_wanted(&event, step, stream) {
                    let body = event.data.into_bytes();
                    return Ok(Told { status: 200, retry_after_s: None, location: None, head: Vec::new(), body });
                }
            }
            if self.connected {
                match connection.more().await? {
                    Some(bytes) => self.parser.push(bytes, &mut self.events),
                    None => {
                        // An end in order is no answer: whoever sends events may end the stream when it likes.
                        self.connected = false;
                        tokio::time::sleep(self.pause(step.polling.every.0)).await;
                    }
                }
                continue;
            }
            match connection.open(&self.ask(request), limit).await? {
                Opened::Stream => {
                    self.parser.restart();
                    self.connected = true;
                }
                Opened::Reply(Reply { status, retry_after_s, location, head, body }) => {
                    let (location, head, body) = (location.map(str::to_owned), head.to_owned(), body.to_owned());
                    return Ok(Told { status, retry_after_s, location, head, body });
                }
            }
        }
    }

    /// The request, with the event after which the stream is to go on.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut out = request.to_owned();
        if !self.parser.last_id().is_empty() {
            // It has no body, so the empty line that ends the head is its end.
            out.truncate(out.len() - 2);
            write!(out, "last-event-id: {}\r\n\r\n", self.parser.last_id()).expect("a Vec never fails");
        }
        out
    }
}

/// Whether an event is about what the step waits for. What keeps a connection alive says nothing of a ticket.
fn is_wanted(event: &Event, step: &CompiledStep, stream: &EventStream) -> bool {
    let named = stream.event.as_ref().is_none_or(|name| *name == event.name);
    let says_something = || serde_json::from_str::<Value>(&event.data).is_ok_and(|json| json.is_object());
    named && (step.role != Role::Ticket || says_something())
}

impl Buyer<'_> {
    /// Waits for the next event of the step's stream, as an attempt.
    pub(super) async fn wait_for_event(
        &mut self,
        walk: &mut Walk<'_>,
        step: &CompiledStep,
        stream: &EventStream,
    ) -> (Attempt, Micros) {
        let mut following = walk.following.take().unwrap_or_default();
        let limit = self.shared.request_timeout;
        let left =
            |until: Micros| Duration::from_micros(u64::try_from(until - self.shared.clock.now_us()).unwrap_or(0));
        let within = match walk.follow_until.map(left) {
            None => stream.within.0,
            // What is asked once more after its time is answered at once or not at all.
            Some(Duration::ZERO) => limit,
            Some(left) => left.min(stream.within.0),
        };
        let end = Instant::now() + within;
        let next = following.next(&mut self.connection, &self.request, (step, stream), limit);
        let told = timeout_at(end, next).await.unwrap_or(Err(Broken::Timeout));
        let completed = self.shared.clock.now_us();
        if told.is_err() {
            following.connected = false;
            self.connection.close();
        }
        let reply = told.as_ref().map(Told::reply).map_err(|broken| *broken);
        let attempt = understand(reply, self.shared, walk, step);
        walk.following = Some(following);
        (attempt, completed)
    }

    /// Stops listening, if it does.
    pub(super) fn stop_listening(&mut self, walk: &mut Walk<'_>) {
        if walk.following.take().is_some_and(|following| following.connected) {
            self.connection.close();
        }
        walk.follow_until = None;
    }
}
