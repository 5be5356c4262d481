//! What a person sees while a run is under way, on stderr: a live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::history::Micros;
use crate::history::recorder::Onlooker;
use crate::load::clock::Clock;
use crate::load::driver::Shared;
use crate::load::live::Live;
use crate::nemesis::InEffect;
use crate::sampler::Steady;
use crate::scenario::Scenario;
use crate::stack::Stack;
use crate::stack::meters::Meters;

/// What somebody who looks on has of a load under way.
#[derive(Debug)]
pub struct Underway {
    /// The run's clock.
    pub clock: Clock,
    /// Counters to look at.
    pub counts: Arc<Live>,
    /// The service's meters, where it has some.
    pub meters: Option<Meters>,
}

/// Who looks on while a scenario is run, and may want it to end: the desk of a drill.
pub trait Audience: Onlooker {
    /// Hears what begins now.
    fn said(&self, what: &str);

    /// The load begins.
    fn begins(&self, load: Underway);

    /// Waits until somebody wants the run to end; gives who and why. It may never end.
    fn wants_to_stop(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
}

/// Tells how a run is getting on.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    live: bool,
    started: Instant,
    audience: Option<Arc<dyn Audience>>,
}

/// A watcher that reports until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Progress {
    /// Reports on stderr, unless `quiet`.
    pub fn new(quiet: bool) -> Progress {
        Progress { quiet, live: std::io::stderr().is_terminal(), started: Instant::now(), audience: None }
    }

    /// The same before an audience.
    pub fn before(self, audience: Arc<dyn Audience>) -> Progress {
        Progress { audience: Some(audience), ..self }
    }

    /// Who looks on at what is recorded, if anybody does.
    pub fn onlooker(&self) -> Option<Arc<dyn Onlooker>> {
        self.audience.clone().map(|audience| audience as Arc<dyn Onlooker>)
    }

    /// Waits until the audience wants the run to end; gives who and why. It may never end.
    pub async fn stop_wanted(&self) -> String {
        match &self.audience {
            Some(audience) => audience.wants_to_stop().await,
            None => std::future::pending().await,
        }
    }

    /// One line about what begins now.
    pub fn say(&self, what: &str) {
        if let Some(audience) = &self.audience {
            audience.said(what);
        }
        if !self.quiet {
            eprintln!("[{:6.1}s] {what}", self.started.elapsed().as_secs_f64());
        }
    }

    /// Reports on the load until it is stopped: four times a second on a terminal, every two seconds elsewhere.
    pub fn watch(
        &self,
        scenario: &Scenario,
        clock: Clock,
        shared: Arc<Shared>,
        steady: Steady,
        faults: InEffect,
        stack: Arc<Stack>,
    ) -> Watcher {
        if let Some(audience) = &self.audience {
            // Neither the stack nor the load itself: whoever holds on to them keeps them from being taken down.
            let (counts, meters) = (shared.live.clone(), stack.meters.clone());
            audience.begins(Underway { clock, counts, meters });
        }
        let stop = CancellationToken::new();
        let view = View {
            duration_us: scenario.load.duration.micros(),
            stock: scenario.item.first().map_or(0, |i| i.stock),
            faults,
            clock,
            shared,
            steady,
            stack,
            last: (0, 0),
        };
        let (quiet, live, stopped) = (self.quiet, self.live, stop.clone());
        let task = tokio::spawn(async move {
            if quiet {
                stopped.cancelled().await;
            } else if live {
                view.on_terminal(stopped).await;
            } else {
                view.in_lines(stopped).await;
            }
        });
        Watcher { stop, task }
    }
}

impl Watcher {
    /// Stops reporting.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct View {
    duration_us: Micros,
    stock: i64,
    faults: InEffect,
    clock: Clock,
    shared: Arc<Shared>,
    steady: Steady,
    stack: Arc<Stack>,
    last: (Micros, u64),
}

impl View {
    fn line(&mut self) -> String {
        let now = self.clock.now_us();
        let live = &self.shared.live;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (ok, fail, info) = (count(&live.ok), count(&live.fail), count(&live.info));
        let requests = ok + fail + info;
        let elapsed = (now - self.last.0).max(1);
        let rate = (requests - self.last.1.min(requests)) as f64 * 1e6 / elapsed as f64;
        self.last = (now, requests);
        let stock = self.steady.available().map_or("?".to_owned(), |n| n.to_string());
        let dropped = count(&live.dropped);
        let mut line = format!(
            "{:5.1}/{:.0}s  {rate:6.0} req/s  orders {:5}  left {stock:>5}/{}  refused {fail}  unclear {info}  dropped {dropped}",
            now.max(0) as f64 / 1e6,
            self.duration_us as f64 / 1e6,
            count(&live.orders),
            self.stock,
        );
        for id in self.faults.ids() {
            line.push_str(&format!("  ⚡{id}"));
        }
        if !self.steady.now() && now > 0 {
            line.push_str("  (not steady)");
        }
        for component in &self.stack.components {
            if let Some(how) = component.ended() {
                line.push_str(&format!("  [{} is down: {how}]", component.role()));
            }
        }
        line
    }

    async fn on_terminal(mut self, stop: CancellationToken) {
        let bar = ProgressBar::with_draw_target(Some(self.duration_us.max(1) as u64), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{bar:24.cyan/dim} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        while !stop.is_cancelled() {
            bar.set_position(self.clock.now_us().clamp(0, self.duration_us) as u64);
            bar.set_message(self.line());
            tick(&stop, Duration::from_millis(250)).await;
        }
        bar.finish_and_clear();
        eprintln!("{}", self.line());
    }

    async fn in_lines(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tick(&stop, Duration::from_secs(2)).await;
            eprintln!("{}", self.line());
        }
    }
}

async fn tick(stop: &CancellationToken, every: Duration) {
    tokio::select! {
        () = tokio::time::sleep(every) => {}
        () = stop.cancelled() => {}
    }
}
