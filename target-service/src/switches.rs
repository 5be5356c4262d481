//! The mechanisms that can be turned off, so that the difference they make can be measured.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{fresh, parse_body};
use crate::config::SwitchSetting;
use crate::problem::{Kind, Problem};

/// A mechanism, by the name it has in scenario files and reports. What its comment says is what `seckill-target
/// catalogue` tells people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum SwitchId {
    /// Expired holds are released by the sweeper.
    C3,
    /// Buyers who left two orders unpaid are refused (off by default).
    C5,
    /// A buyer has no more of an item at once than its limit per user; turned, it counts from the next reset on.
    C6,
    /// Orders of one buyer are limited in number, and by a pause after one left unpaid (off by default).
    C7,
    /// Accounts that behave like machines, or come from one device in numbers, are refused (off by default).
    C8,
    /// Orders are read and answered in Protobuf where a client asks for it.
    E2,
    /// Replies to orders are written straight into bytes around parts that are encoded beforehand.
    E3,
    /// Refusals of orders are the same prebuilt bytes for everybody.
    E4,
    /// Orders are taken by a bare handler instead of through the routes and the chain of middleware.
    E5,
    /// Beyond the bound on requests in flight, further ones are dropped.
    K8,
    /// A dependency that only extras come from is slow: extras are off (off by default).
    L1,
    /// Reads and orders take too long: item states come from a snapshot that says how old it is (off by default).
    L2,
    /// The database is gone: pages are static and ordering is closed (off by default).
    L3,
    /// Most requests are turned away or fail: everything is static (off by default).
    L4,
    /// Levels of degrading are entered and left by themselves.
    L5,
    /// A dependency that does not answer is not called for a while, then by a few probes.
    L7,
    /// The access layer answers item states from memory for a short time.
    M2,
    /// Static item pages are answered from memory, by the access layer and by the service.
    P5,
    /// The access layer puts an item's state into the page for buyers, which then nobody may keep (off by default).
    P9,
    /// The access layer refuses who is not logged in, what makes no sense, and who asks too often (off by default).
    V2,
    /// The service refuses from memory before the sale opens, and looks without a lock at what was seen sold out (off by default).
    V3,
}

impl SwitchId {
    /// Every switch there is.
    pub const ALL: [Self; 21] = [
        Self::C3,
        Self::C5,
        Self::C6,
        Self::C7,
        Self::C8,
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E5,
        Self::K8,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L7,
        Self::M2,
        Self::P5,
        Self::P9,
        Self::V2,
        Self::V3,
    ];
}

impl SwitchId {
    /// Whether it works unless it is turned off. What refuses people, or shows them less, has to be asked for.
    const fn is_default(self) -> bool {
        !matches!(
            self,
            Self::C5 | Self::C7 | Self::C8 | Self::L1 | Self::L2 | Self::L3 | Self::L4 | Self::P9 | Self::V2 | Self::V3
        )
    }
}

impl fmt::Display for SwitchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for SwitchId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|id| id.to_string() == text).ok_or_else(|| {
            let known = Self::ALL.map(|id| id.to_string()).join(", ");
            format!("there is no switch `{text}`; known switches: {known}")
        })
    }
}

/// The present setting of every switch.
#[derive(Debug)]
pub struct Switches {
    on: [AtomicBool; SwitchId::ALL.len()],
}

impl Default for Switches {
    fn default() -> Self {
        Self { on: SwitchId::ALL.map(|id| AtomicBool::new(id.is_default())) }
    }
}

impl Switches {
    /// These settings, and every other mechanism as it is by default.
    pub fn with(settings: &[SwitchSetting]) -> Arc<Self> {
        let switches = Self::default();
        for setting in settings {
            switches.set(setting.id, setting.on);
        }
        Arc::new(switches)
    }

    /// Whether the mechanism works.
    pub fn is_on(&self, id: SwitchId) -> bool {
        self.on[id as usize].load(Ordering::Relaxed)
    }

    /// Turns the mechanism on or off.
    pub fn set(&self, id: SwitchId, on: bool) {
        self.on[id as usize].store(on, Ordering::Relaxed);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    on: bool,
}

/// The routes by which drills look at the switches of a process and turn them.
pub fn router(switches: Arc<Switches>) -> Router {
    Router::new().route("/switches", get(all)).route("/switches/{id}", get(one).put(turn)).with_state(switches)
}

async fn all(State(switches): State<Arc<Switches>>) -> Response {
    let all: Vec<Value> = SwitchId::ALL.into_iter().map(|id| position(&switches, id)).collect();
    fresh(StatusCode::OK, &json!({"switches": all}))
}

async fn one(State(switches): State<Arc<Switches>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = known(&id)?;
    Ok(fresh(StatusCode::OK, &position(&switches, id)))
}

async fn turn(State(switches): State<Arc<Switches>>, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let id = known(&id)?;
    let Position { on } = parse_body(&body)?;
    switches.set(id, on);
    tracing::info!(%id, on, "switched");
    Ok(fresh(StatusCode::OK, &position(&switches, id)))
}

fn known(id: &str) -> Result<SwitchId, Problem> {
    id.parse().map_err(|complaint: String| Problem::because(Kind::NotFound, complaint))
}

fn position(switches: &Switches, id: SwitchId) -> Value {
    json!({"id": id.to_string(), "on": switches.is_on(id)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_moves_alone() {
        let switches = Switches::default();
        switches.set(SwitchId::K8, false);
        for id in SwitchId::ALL {
            assert_eq!(switches.is_on(id), id.is_default() && id != SwitchId::K8, "{id}");
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
