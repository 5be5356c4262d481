//! A buyer outside of the load: one that the drain probe sends, or that tries an adapter. Nothing of what it does is recorded.

use std::time::Duration;

use super::follow::{Following, Told};
use crate::load::classify::{self, Said};
use crate::load::client::{Broken, Connection, Reply};
use crate::load::cookies::Jar;
use crate::scenario::journey::{CompiledStep, Journey};
use crate::scenario::template::Values;

/// A buyer that nobody has seen before, on its way through a journey.
pub(crate) struct Alone<'a> {
    /// Its journey.
    pub journey: &'a Journey,
    connection: &'a mut Connection,
    header_lines: &'a [u8],
    /// What it is called.
    pub user: String,
    /// The idempotency key of its order.
    pub key: String,
    /// What replies have given so far, by slot.
    pub captured: Vec<String>,
    cookies: Jar,
}

impl<'a> Alone<'a> {
    /// One that sets out over a connection; `header_lines` are those that every request bears.
    pub fn new(
        journey: &'a Journey,
        connection: &'a mut Connection,
        header_lines: &'a [u8],
        (user, key): (String, String),
    ) -> Alone<'a> {
        let captured = vec![String::new(); journey.slots.len()];
        Alone { journey, connection, header_lines, user, key, captured, cookies: Jar::default() }
    }

    /// The names of what a step sends and no reply has given.
    pub fn missing(&self, step: &CompiledStep) -> impl Iterator<Item = &str> {
        let journey = self.journey;
        step.needs.iter().filter(|slot| self.captured[**slot].is_empty()).map(|slot| journey.slots[*slot].as_str())
    }

    /// A step's request for so many units.
    pub fn request(&self, step: &CompiledStep, quantity: i32) -> Vec<u8> {
        let Alone { journey, user, key, captured, .. } = self;
        let cookies = self.cookies.header();
        step.request(&Values { user, key, item: journey.item, quantity, captured, cookies }, self.header_lines)
    }

    /// Sends a step's request once, and waits for the reply or the event: what came of it, and the reply's status with what
    /// `look` takes from it, if there was one.
    pub async fn send<T>(
        &mut self,
        step: &CompiledStep,
        request: &[u8],
        limit: Duration,
        look: impl FnOnce(&Reply<'_>) -> T,
    ) -> (Said, Option<(u16, T)>) {
        let event;
        let answer = match &step.stream {
            None => self.connection.exchange(request, limit).await,
            Some(stream) => {
                let mut following = Following::default();
                let next = following.next(self.connection, request, (step, stream), limit);
                event = tokio::time::timeout(stream.within.0.max(limit), next).await.unwrap_or(Err(Broken::Timeout));
                self.connection.close();
                event.as_ref().map(Told::reply).map_err(|broken| *broken)
            }
        };
        match answer {
            Err(broken) => (Said::only(classify::broken(broken)), None),
            Ok(reply) => {
                if self.journey.cookies {
                    self.cookies.keep(&reply);
                }
                let said = classify::read(step, &reply, &mut self.captured);
                (said, Some((reply.status, look(&reply))))
            }
        }
    }
}
