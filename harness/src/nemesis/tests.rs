//! Timelines on a clock that stands still until everybody waits for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::*;
use crate::history::HEALED_WITHIN_US;
use crate::sampler::Recovery;
use crate::scenario::value::Dur;

/// How a fault of the fake world behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Obeys,
    /// Healing fails so many times.
    FailsToHeal(u32),
    /// Healing hangs so many times.
    HangsHealing(u32),
    RefusesInjection,
    HangsInjecting,
    /// It is in effect when its injection fails, and undoing fails so many times.
    FailsHalfWay(u32),
    /// It is in effect when its injection hangs, and undoing hangs so many times.
    HangsHalfWay(u32),
    /// Its task panics once it is in effect: whoever injects it never comes to waiting for its end.
    NeverRecovers,
}

#[derive(Debug, Default)]
struct State {
    sleepers: BTreeSet<Micros>,
    told: Vec<Event>,
    in_effect: BTreeSet<String>,
    most_in_effect: usize,
    /// How often it was tried to undo an injection.
    undone: BTreeMap<String, u32>,
}

/// A run without a stack.
#[derive(Debug)]
struct Fake {
    now: watch::Sender<Micros>,
    state: Mutex<State>,
    kinds: BTreeMap<String, Kind>,
    /// When events of the load come.
    comes: Vec<(Cause, Micros)>,
}

impl Fake {
    fn state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was told, in short: `12.5s a healed`.
    fn told(&self) -> Vec<String> {
        let line = |event: &Event| {
            let (at_us, what) = match event {
                Event::FaultTriggered { id, at_us, .. } => (*at_us, format!("{id} triggered")),
                Event::FaultSkipped { id, at_us, why } => (*at_us, format!("{id} skipped: {why}")),
                Event::FaultInjected { id, at_us } => (*at_us, format!("{id} injected")),
                Event::FaultHealed { id, at_us, .. } => (*at_us, format!("{id} healed")),
                Event::FaultRecovered { id, at_us, .. } => (*at_us, format!("{id} recovered")),
                Event::FaultFailed { id, at_us, error } => (*at_us, format!("{id} failed: {error}")),
                Event::Note { at_us, text } => (*at_us, text.clone()),
                _ => return None,
            };
            Some(format!("{}s {what}", at_us as f64 / 1e6))
        };
        self.state(|state| state.told.iter().filter_map(line).collect())
    }
}

struct InFake {
    world: Arc<Fake>,
    id: String,
    failures: u32,
    hangs: u32,
}

impl Healing for InFake {
    fn heal(&mut self) -> BoxFuture<'_, Result<Hit, String>> {
        Box::pin(async {
            if self.hangs > 0 {
                self.hangs -= 1;
                std::future::pending::<()>().await;
            }
            if self.failures > 0 {
                self.failures -= 1;
                return Err("it does not obey".to_owned());
            }
            self.world.state(|state| state.in_effect.remove(&self.id));
            Ok(Hit::new(1, "1 process"))
        })
    }
}

/// A world that can be shared: the trait's methods have no access to their own `Arc`.
#[derive(Debug, Clone)]
struct Shared(Arc<Fake>);

impl World for Shared {
    fn now_us(&self) -> Micros {
        *self.0.now.borrow()
    }
    fn sleep_until(&self, at_us: Micros) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.state(|state| state.sleepers.insert(at_us));
            let _ = self.0.now.subscribe().wait_for(|now| *now >= at_us).await;
        })
    }
    fn say(&self, event: &Event) {
        self.0.state(|state| state.told.push(event.clone()));
    }
    fn inject<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<Box<dyn Healing>, String>> {
        Box::pin(async move {
            let kind = self.0.kinds.get(&fault.id).copied().unwrap_or(Kind::Obeys);
            let (mut failures, mut hangs) = (0, 0);
            match kind {
                Kind::RefusesInjection => return Err("there is nothing to break".to_owned()),
                Kind::HangsInjecting => std::future::pending().await,
                Kind::FailsHalfWay(_) | Kind::HangsHalfWay(_) => {
                    self.0.state(|state| state.in_effect.insert(fault.id.clone()));
                    if let Kind::FailsHalfWay(_) = kind {
                        return Err("it broke half of it".to_owned());
                    }
                    std::future::pending().await
                }
                Kind::FailsToHeal(times) => failures = times,
                Kind::HangsHealing(times) => hangs = times,
                Kind::Obeys | Kind::NeverRecovers => {}
            }
            self.0.state(|state| {
                state.in_effect.insert(fault.id.clone());
                state.most_in_effect = state.most_in_effect.max(state.in_effect.len());
            });
            let fault: Box<dyn Healing> =
                Box::new(InFake { world: self.0.clone(), id: fault.id.clone(), failures, hangs });
            Ok(fault)
        })
    }
    fn undo<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let times = self.0.state(|state| {
                let times = state.undone.entry(fault.id.clone()).or_default();
                *times += 1;
                *times
            });
            match self.0.kinds.get(&fault.id) {
                Some(Kind::FailsHalfWay(failures)) if times <= *failures => return Err("it does not obey".to_owned()),
                Some(Kind::HangsHalfWay(hangs)) if times <= *hangs => std::future::pending::<()>().await,
                _ => {}
            }
            self.0.state(|state| state.in_effect.remove(&fault.id));
            Ok(())
        })
    }
    fn comes<'a>(&'a self, cause: &'a Cause) -> BoxFuture<'a, Micros> {
        Box::pin(async move {
            let Some((_, at_us)) = self.0.comes.iter().find(|(known, _)| known == cause) else {
                return std::future::pending().await;
            };
            self.sleep_until(*at_us).await;
            *at_us
        })
    }
    fn hint(&self, _: &Cause) -> String {
        String::new()
    }
    fn recovered(&self, from_us: Micros, limit: Duration) -> BoxFuture<'_, Option<Recovery>> {
        Box::pin(async move {
            let never = self.0.kinds.values().any(|kind| *kind == Kind::NeverRecovers);
            let at_us = from_us + if never { limit.as_micros() as Micros } else { 100_000 };
            self.sleep_until(at_us).await;
            (!never).then_some(Recovery { at_us, last_probe: None })
        })
    }
}

/// Lets everybody go on until all wait for the clock, and sets it to what the next one waits for; until a time of the run,
/// or until nobody waits any more.
async fn pass(world: &Fake, until_us: Micros) {
    loop {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let now = *world.now.borrow();
        let next = world.state(|state| {
            state.sleepers = state.sleepers.split_off(&(now + 1));
            state.sleepers.first().copied()
        });
        match next.filter(|next| *next <= until_us) {
            Some(next) => world.now.send_replace(next),
            None => return,
        };
    }
}

fn fault(id: &str, when: When, lasts_ms: u64) -> Planned {
    doing("latency = { link = 'service→postgres', delay = '1ms' }", id, when, lasts_ms)
}

/// One of a kind that others of the same role may exclude.
fn doing(inject: &str, id: &str, when: When, lasts_ms: u64) -> Planned {
    let inject = toml::from_str(inject).unwrap();
    Planned { id: id.to_owned(), when, lasts: Dur::millis(lasts_ms), optional: false, inject }
}

fn at(ms: u64) -> When {
    When::At(Dur::millis(ms))
}

fn after(cause: Cause, delay_ms: u64, by_ms: u64) -> When {
    When::After { cause, delay: Dur::millis(delay_ms), by: Dur::millis(by_ms) }
}

fn fake(kinds: &[(&str, Kind)], comes: &[(Cause, Micros)]) -> Arc<Fake> {
    let kinds = kinds.iter().map(|(id, kind)| ((*id).to_owned(), *kind)).collect();
    Arc::new(Fake { now: watch::Sender::new(0), state: Mutex::default(), kinds, comes: comes.to_vec() })
}

/// Runs a timeline to its end, if `stop_us` is past it; otherwise everything is healed at that time.
fn run(world: &Arc<Fake>, timeline: Vec<Planned>, stop_us: Micros) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let shared: Arc<dyn World> = Arc::new(Shared(world.clone()));
        let nemesis = Nemesis::start(timeline, &shared);
        pass(world, stop_us).await;
        nemesis.heal_now();
        pass(world, Micros::MAX).await;
        nemesis.finished().await;
    });
    assert!(world.state(|state| state.in_effect.is_empty()) || world.told().iter().any(|line| line.contains("failed")));
    world.told()
}

const END: Micros = 600_000_000;

#[test]
fn faults_come_when_their_time_or_their_event_has_come() {
    let half = Cause::StockLeft(0.5);
    let world = fake(&[], &[(half.clone(), 4_000_000)]);
    let timeline = vec![
        fault("last", after(Cause::Recovered("half".into()), 0, 20_000), 1_000),
        fault("timed", at(3_000), 1_200),
        fault("half", after(half, 500, 9_000), 2_000),
        fault("then", after(Cause::Healed("timed".into()), 0, 9_000), 500),
    ];
    assert_eq!(
        run(&world, timeline, END),
        [
            "3s timed injected",
            "4s half triggered",
            "4.2s timed healed",
            "4.2s then triggered",
            "4.2s then injected",
            "4.3s timed recovered",
            "4.5s half injected",
            "4.7s then healed",
            "4.8s then recovered",
            "6.5s half healed",
            "6.6s half recovered",
            "6.6s last triggered",
            "6.6s last injected",
            "7.6s last healed",
            "7.7s last recovered",
        ]
    );
    assert_eq!(world.state(|state| state.most_in_effect), 2);
}

#[test]
fn a_fault_whose_event_does_not_come_in_time_is_told_and_so_is_what_waits_for_it() {
    let world = fake(&[], &[(Cause::First("sold-out".into()), 9_500_000)]);
    let timeline = vec![
        fault("late", after(Cause::First("sold-out".into()), 0, 9_000), 1_000),
        fault("then", after(Cause::Healed("late".into()), 0, 20_000), 1_000),
    ];
    assert_eq!(
        run(&world, timeline, END),
        [
            "9s late skipped: it waited for this, which did not happen: the first \"sold-out\" (not by 9s)",
            "9s then skipped: it waited for this, which did not happen: late was healed (late is over)",
        ]
    );
}

#[test]
fn a_fault_waits_for_one_that_it_would_end_and_for_no_other() {
    let pause = |id: &str, when, lasts_ms| doing("pause = { role = 'postgres' }", id, when, lasts_ms);
    let sold = Cause::First("sold-out".into());
    // Its first healing fails, so that it is healed a little later than planned.
    let world = fake(&[("timed", Kind::FailsToHeal(1))], &[(sold.clone(), 4_000_000)]);
    let timeline = vec![
        pause("timed", at(2_000), 6_000),
        pause("sold", after(sold, 0, 9_000), 8_000),
        doing("kill = { role = 'service' }", "elsewhere", at(4_200), 1_000),
        doing("read-only = { role = 'postgres' }", "other", at(4_300), 1_000),
    ];
    let told = run(&world, timeline, END);
    let late = "8.1s `sold` came 4100 ms late: it waited until `timed` was healed, since healing one would have ended the other";
    let of_role = |line: &&String| line.contains("sold") || line.contains("timed") || line.contains("injected");
    assert_eq!(
        told.iter().filter(of_role).collect::<Vec<_>>(),
        [
            "2s timed injected",
            "4s sold triggered",
            "4.2s elsewhere injected",
            "4.3s other injected",
            "8.1s timed healed",
            late,
            "8.1s sold injected",
            "8.2s timed recovered",
            "16.1s sold healed",
            "16.2s sold recovered",
        ],
        "{told:#?}"
    );
}

#[test]
fn a_fault_that_would_have_to_wait_too_long_for_another_is_left_out_and_told() {
    let sold = Cause::First("sold-out".into());
    let world = fake(&[], &[(sold.clone(), 4_000_000)]);
    let kill = |id: &str, when, lasts_ms| doing("kill = { role = 'access-1' }", id, when, lasts_ms);
    let timeline = vec![
        kill("long", at(2_000), 60_000),
        doing("pause = { role = 'access' }", "sold", after(sold, 0, 9_000), 1_000),
        // Two at the same moment: one of them goes first.
        doing("kill = { role = 'postgres' }", "one", at(1_000), 1_000),
        doing("kill = { role = 'postgres' }", "two", at(1_000), 1_000),
    ];
    let told = run(&world, timeline, END);
    let skipped = "24s sold skipped: long was in effect, and healing one would have ended the other (waited for 20s)";
    assert!(told.contains(&skipped.to_owned()), "{told:#?}");
    let injected = |at: &str| told.iter().filter(|line| line.starts_with(at) && line.ends_with("injected")).count();
    assert_eq!((injected("1s"), injected("2s")), (1, 2), "{told:#?}");
    // Who waits when everything is to be healed is not injected any more.
    let world = fake(&[], &[]);
    let told = run(&world, vec![kill("a", at(1_000), 60_000), kill("b", at(1_500), 60_000)], 2_000_000);
    assert!(!told.iter().any(|line| line.contains("b injected")), "{told:#?}");
}

#[test]
fn everything_is_healed_at_once_and_nothing_more_is_injected() {
    let world = fake(&[], &[]);
    let timeline = vec![
        fault("a", at(1_000), 60_000),
        fault("b", at(1_500), 60_000),
        fault("c", at(9_000), 60_000),
        fault("d", after(Cause::Healed("a".into()), 0, 90_000), 1_000),
    ];
    let told = run(&world, timeline, 2_000_000);
    let healed = told.iter().filter(|line| line.starts_with("1.5s") && line.ends_with("healed")).count();
    assert_eq!((told.len(), healed), (6, 2), "{told:#?}");
    assert_eq!(told.iter().filter(|line| line.ends_with("recovered")).count(), 2, "recoveries are watched: {told:#?}");
}

/// Stops a run at a time of it, and says what was still in effect when everything was to be healed.
fn stopped_at(world: &Arc<Fake>, timeline: Vec<Planned>, stop_us: Micros) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let shared: Arc<dyn World> = Arc::new(Shared(world.clone()));
        let nemesis = Nemesis::start(timeline, &shared);
        pass(world, stop_us).await;
        world.now.send_replace(stop_us);
        nemesis.heal_now();
        let (late, ()) = tokio::join!(nemesis.healed_within(HEALED_WITHIN_US, &*shared), pass(world, Micros::MAX));
        nemesis.finished().await;
        late
    })
}

#[test]
fn what_is_not_healed_in_time_when_a_run_is_stopped_is_named() {
    let timeline = || vec![fault("a", at(1_000), 60_000), fault("b", at(1_500), 60_000), fault("c", at(9_000), 1_000)];
    // One attempt that fails costs a tenth of a second; one that hangs, 25 seconds.
    let slow = fake(&[("a", Kind::FailsToHeal(1)), ("b", Kind::HangsHealing(1))], &[]);
    assert_eq!(stopped_at(&slow, timeline(), 2_000_000), ["b"]);
    let told = slow.told();
    assert!(told.contains(&"4s not healed within 2s after the run was stopped: b".to_owned()), "{told:#?}");
    assert!(told.contains(&"27.1s b healed".to_owned()), "it is healed all the same: {told:#?}");
    let quick = fake(&[("a", Kind::FailsToHeal(2))], &[]);
    assert_eq!(stopped_at(&quick, timeline(), 2_000_000), [] as [&str; 0]);
    assert!(!quick.told().iter().any(|line| line.contains("not healed")), "{:#?}", quick.told());
    // One that is being injected when the run is stopped is given up, and what was done of it is undone.
    let injecting = fake(&[("a", Kind::HangsHalfWay(0)), ("b", Kind::HangsHalfWay(1))], &[]);
    assert_eq!(stopped_at(&injecting, timeline(), 2_000_000), ["b"]);
    let stopped = |id: &str, at: &str| {
        format!("{at} {id} failed: it could not be injected: the run was stopped before it was in effect")
    };
    let told = injecting.told();
    assert!(told.contains(&stopped("a", "2s")) && told.contains(&stopped("b", "27.1s")), "{told:#?}");
    assert!(injecting.state(|state| state.in_effect.is_empty()));
}

#[test]
fn what_an_injection_has_done_that_did_not_come_to_its_end_is_undone() {
    let kinds = [
        ("failed", Kind::FailsHalfWay(0)),
        ("again", Kind::FailsHalfWay(1)),
        ("hung", Kind::HangsHalfWay(1)),
        ("never", Kind::FailsHalfWay(9)),
        ("done", Kind::Obeys),
    ];
    let world = fake(&kinds, &[]);
    let told = run(&world, kinds.iter().map(|(id, _)| fault(id, at(1_000), 1_000)).collect(), END);
    let failed = |at: &str, id: &str, why: &str| format!("{at} {id} failed: it could not be injected: {why}");
    let never = "it broke half of it; and what was done of it could not be undone: it does not obey (tried 3 times)";
    for line in [
        failed("1s", "failed", "it broke half of it"),
        failed("1.1s", "again", "it broke half of it"),
        failed("56.1s", "hung", "it took longer than 30s"),
        failed("1.3s", "never", never),
    ] {
        assert!(told.contains(&line), "{line}: {told:#?}");
    }
    let undone = [("again", 2), ("failed", 1), ("hung", 2), ("never", 3)].map(|(id, times)| (id.to_owned(), times));
    assert_eq!(world.state(|state| state.undone.clone()), BTreeMap::from(undone), "and nothing that was injected is");
    assert_eq!(world.state(|state| state.in_effect.clone()), BTreeSet::from(["never".to_owned()]));
}

#[test]
fn a_process_that_is_waited_for_does_not_outlast_its_injection() {
    assert!(crate::fault::stop::LONGEST.0 + Duration::from_secs(5) <= INJECTION_LIMIT);
}

#[test]
fn a_fault_holds_what_it_has_until_it_is_undone() {
    let world = fake(&[("first", Kind::FailsHalfWay(1))], &[]);
    let kill = |id: &str, ms| doing("kill = { role = 'service' }", id, at(ms), 1_000);
    let told = run(&world, vec![kill("first", 1_000), kill("second", 1_050)], END);
    let injected = told.iter().find(|line| line.ends_with("second injected"));
    assert_eq!(injected.map(String::as_str), Some("1.1s second injected"), "{told:#?}");
}

#[test]
fn healing_is_tried_again_and_then_declared_failed() {
    let kinds = [("once", Kind::FailsToHeal(1)), ("hangs", Kind::HangsHealing(1)), ("never", Kind::FailsToHeal(9))];
    let world = fake(&kinds, &[]);
    let timeline =
        vec![fault("once", at(1_000), 1_000), fault("hangs", at(1_000), 1_000), fault("never", at(1_000), 1_000)];
    let told = run(&world, timeline, END);
    assert!(told.contains(&"2.1s once healed".to_owned()), "{told:#?}");
    assert!(told.contains(&"27.1s hangs healed".to_owned()), "{told:#?}");
    let failed = "2.3s never failed: it could not be healed: it does not obey (tried 3 times)";
    assert!(told.contains(&failed.to_owned()), "{told:#?}");
}

#[test]
fn what_cannot_be_injected_is_told_and_holds_nothing_up() {
    let kinds = [("refused", Kind::RefusesInjection), ("hangs", Kind::HangsInjecting)];
    let world = fake(&kinds, &[]);
    let told = run(&world, vec![fault("refused", at(1_000), 1_000), fault("hangs", at(1_000), 1_000)], END);
    assert_eq!(
        told,
        [
            "1s refused failed: it could not be injected: there is nothing to break",
            "31s hangs failed: it could not be injected: it took longer than 30s",
        ]
    );
}

#[test]
fn a_recovery_that_does_not_come_is_given_up() {
    let world = fake(&[("a", Kind::NeverRecovers)], &[]);
    let told = run(&world, vec![fault("a", at(1_000), 1_000)], END);
    assert_eq!(told[2], "22s the steady state did not hold again within 20s after `a` was healed");
}

/// A lease without the task that was to wait for its end.
#[test]
fn a_lease_heals_when_its_time_is_over_and_when_it_is_dropped() {
    let world = fake(&[], &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let shared: Arc<dyn World> = Arc::new(Shared(world.clone()));
        let (tracker, heal_now) = (TaskTracker::new(), CancellationToken::new());
        let planned = [fault("kept", at(0), 0), fault("dropped", at(0), 0)];
        let mut leases = Vec::new();
        for planned in &planned {
            let fault = shared.inject(planned).await.unwrap();
            leases.push(Lease::grant(&tracker, &shared, &heal_now, fault, 5_000_000));
        }
        pass(&world, 1_000_000).await;
        assert_eq!(world.state(|state| state.in_effect.len()), 2);
        drop(leases.pop());
        pass(&world, 1_000_000).await;
        assert_eq!(world.state(|state| state.in_effect.clone()), BTreeSet::from(["kept".to_owned()]));
        // Nobody looks at the other one any more, and yet it ends in time.
        std::mem::forget(leases.pop());
        pass(&world, 5_000_000).await;
        assert!(world.state(|state| state.in_effect.is_empty()));
        tracker.close();
        tracker.wait().await;
    });
}
