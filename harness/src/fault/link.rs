//! Faults of links: a toxic armed on the link's proxy.

use std::num::NonZeroU64;

use futures_util::future::BoxFuture;

use super::toxic::{CutPoint, Pick, RequestPattern, Toxic, ToxicHit, ToxicId, ToxicKind};
use super::{ActiveFault, Fault};
use crate::scenario::Inject;
use crate::stack::{Stack, StackError};

/// A toxic on a link.
#[derive(Debug)]
pub struct LinkFault {
    link: String,
    toxic: Toxic,
}

#[derive(Debug)]
struct Armed {
    link: String,
    id: ToxicId,
}

impl LinkFault {
    /// The toxic that a scenario's fault asks for.
    ///
    /// # Panics
    /// If the fault is not one of a link.
    pub fn new(inject: &Inject) -> LinkFault {
        let link = inject.link().expect("a fault on a link names it");
        let toxic = match inject {
            Inject::Latency(f) => {
                Toxic::new(ToxicKind::Latency { delay: f.delay.0, jitter: f.jitter.0 }).fraction(f.fraction)
            }
            Inject::BlackHole(f) => Toxic::new(ToxicKind::BlackHole).fraction(f.fraction),
            Inject::Reset(f) => Toxic::new(ToxicKind::Reset).fraction(f.fraction),
            Inject::CutAfterCommit(f) => {
                let after = match &f.pattern {
                    None => CutPoint::Commit,
                    Some(contains) => CutPoint::Statement { contains: contains.clone() },
                };
                Toxic::new(ToxicKind::CutReply { after, pick: pick(f.every) })
            }
            Inject::CutReply(f) => {
                let request = RequestPattern { method: None, path: f.pattern.clone() };
                Toxic::new(ToxicKind::HttpCutReply { request, pick: pick(f.every) })
            }
            Inject::Kill(_) | Inject::Pause(_) => unreachable!("faults of processes are made elsewhere"),
        };
        LinkFault { link, toxic }
    }
}

impl Fault for LinkFault {
    fn inject<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let id = stack.link(&self.link)?.arm(self.toxic.clone())?;
            let armed: Box<dyn ActiveFault> = Box::new(Armed { link: self.link.clone(), id });
            Ok(armed)
        })
    }
}

impl ActiveFault for Armed {
    fn heal<'a>(self: Box<Self>, stack: &'a Stack) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let hit = stack.link(&self.link)?.disarm(self.id)?.unwrap_or_default();
            Ok(describe(&hit))
        })
    }
}

fn pick(every: u32) -> Pick {
    NonZeroU64::new(every.into()).map_or(Pick::All, Pick::Every)
}

fn describe(hit: &ToxicHit) -> String {
    let cut = if hit.calls > 0 { format!(", {} replies cut", hit.calls) } else { String::new() };
    format!("{} connections, {} chunks, {} bytes{cut}", hit.connections, hit.chunks, hit.bytes)
}
