//! The blast radius of histories that are made up, so that what the fault did in them is known.

use harness::check::{Expectations, Rules};
use harness::history::{
    Closed, Event, FaultPlan, History, Machine, Names, Op, OrderState, Outcome, Role, RunInfo, Sym,
};
use harness::measure::summarize;
use harness::summary::{BlastCell, BlastFault, BlastRadius, Change, Effect, Likeness, Summary, WindowEnd};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What happens to one op of the made-up sale.
#[derive(Clone, Copy)]
struct Fate {
    /// Its latency is so many times the usual.
    slower: f64,
    /// The probability that it gets no answer.
    lost: f64,
    /// The probability that an order is refused.
    refused: f64,
    /// The reason of such a refusal.
    reason: &'static str,
}

const WELL: Fate = Fate { slower: 1.0, lost: 0.0, refused: 0.0, reason: "queue-full" };

/// A fault: its name, and its injection, healing and recovery in seconds.
type Told = (&'static str, f64, Option<f64>, Option<f64>);

/// A sale of twenty seconds, in which 200 buyers, bystanders and readers come per second.
struct Sale {
    seed: u64,
    cohorts: &'static [&'static str],
    faults: Vec<Told>,
    /// Name, start and end in seconds.
    phases: Vec<(&'static str, f64, f64)>,
    /// How many times the usual rate comes at a second.
    rate: fn(f64) -> f64,
    /// What happens to a cohort's op of that step at that second.
    fate: fn(&str, &str, f64) -> Fate,
}

const SECONDS: f64 = 20.0;
const RATE: f64 = 200.0;

impl Default for Sale {
    fn default() -> Sale {
        Sale {
            seed: 1,
            cohorts: &["buyers", "bystanders", "readers"],
            faults: vec![("fault", 8.0, Some(12.0), Some(12.0))],
            phases: Vec::new(),
            rate: |_| 1.0,
            fate: |_, _, _| WELL,
        }
    }
}

impl Sale {
    fn history(&self) -> History {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut history = History {
            info: info(),
            ops: Vec::new(),
            events: self.events(),
            names: Names::default(),
            damage: Vec::new(),
        };
        for (number, cohort) in self.cohorts.iter().enumerate() {
            let (mut at, mut user) = (0.0, number as u64 * 1_000_000);
            loop {
                at += -(1.0 - rng.random::<f64>()).ln() / (RATE * (self.rate)(at));
                if at >= SECONDS {
                    break;
                }
                user += 1;
                let steps = if *cohort == "readers" { ["page", "time"] } else { ["page", "order"] };
                let mut from = at;
                for step in steps {
                    from = self.op(&mut history, &mut rng, cohort, step, user, from);
                }
            }
        }
        history.ops.sort_by_key(|op| op.completed_us);
        history
    }

    /// Adds an op; gives the second of its end.
    fn op(&self, to: &mut History, rng: &mut ChaCha8Rng, cohort: &str, step: &str, user: u64, from: f64) -> f64 {
        let fate = (self.fate)(cohort, step, from);
        // Exponential, with a mean of 2 ms for reads and 10 ms for orders.
        let mean = if step == "order" { 0.010 } else { 0.002 };
        let until = from + -(1.0 - rng.random::<f64>()).ln() * mean * fate.slower;
        let (outcome, reason) = match rng.random::<f64>() {
            x if x < fate.lost => (Outcome::Info, "timeout"),
            x if step == "order" && x < fate.lost + fate.refused => (Outcome::Fail, fate.reason),
            _ => (Outcome::Ok, ""),
        };
        let us = |s: f64| (s * 1e6) as i64;
        to.ops.push(Op {
            intent: user,
            user,
            attempt: 1,
            status: if outcome == Outcome::Info { 0 } else { 200 },
            role: if step == "order" { Role::Order } else { Role::Read },
            outcome,
            state: OrderState::Unknown,
            cohort: to.names.intern(cohort),
            step: to.names.intern(step),
            reason: to.names.intern(reason),
            order: Sym(0),
            ticket: Sym(0),
            token: Sym(0),
            item: 1,
            quantity: 1,
            amount_cents: -1,
            intended_us: us(from),
            invoked_us: us(from),
            completed_us: us(until),
        });
        until
    }

    fn events(&self) -> Vec<Event> {
        let us = |s: f64| (s * 1e6) as i64;
        let mut events = Vec::new();
        for (name, from, until) in &self.phases {
            events.push(Event::Phase { name: (*name).into(), from_us: us(*from), until_us: us(*until) });
        }
        for (id, from, healed, recovered) in &self.faults {
            let id = || (*id).to_string();
            events.push(Event::FaultPlanned(FaultPlan {
                id: id(),
                kind: "latency".into(),
                link: Some("service→postgres".into()),
                role: None,
                detail: String::new(),
                at_us: us(*from),
                until_us: us(healed.unwrap_or(SECONDS)),
                ..FaultPlan::default()
            }));
            events.push(Event::FaultInjected { id: id(), at_us: us(*from) });
            events.extend(healed.map(|at| Event::FaultHealed {
                id: id(),
                at_us: us(at),
                hit: String::new(),
                count: None,
            }));
            events.extend(recovered.map(|at| Event::FaultRecovered { id: id(), at_us: us(at), last_probe: None }));
        }
        events
    }

    fn summary(&self) -> Summary {
        summarize(&self.history(), None, &rules(), Vec::new(), &[], "")
    }

    #[track_caller]
    fn matrix(&self) -> BlastRadius {
        self.summary().blast_radius.expect("a matrix")
    }
}

fn rules() -> Rules {
    Rules {
        items: Vec::new(),
        epsilon_us: 0,
        ticket_deadline_us: 0,
        expect: Expectations::default(),
        send_lag_limit_us: 1_000_000,
        abusive_cohorts: Vec::new(),
        set_up: true,
    }
}

fn info() -> RunInfo {
    RunInfo {
        run_id: "r1".into(),
        scenario: "made-up".into(),
        seed: 7,
        schedule_hash: String::new(),
        timeline_hash: String::new(),
        epoch_unix_us: 0,
        user_prefix: "u".into(),
        key_prefix: "k".into(),
        duration_us: (SECONDS * 1e6) as i64,
        machine: Machine::default(),
        closed: Some(Closed { how: "completed".into(), ops: 0, ops_lost: 0, events: None }),
        shard: None,
        merged: Vec::new(),
    }
}

fn during(from: f64, until: f64, at: f64) -> bool {
    (from..until).contains(&at)
}

fn cell<'a>(row: &'a BlastFault, cohort: &str) -> &'a BlastCell {
    row.cells.iter().find(|cell| cell.cohort == cohort).unwrap()
}

/// The changes of a cell: TP99, errors, goodput.
fn changes(row: &BlastFault, cohort: &str) -> [Change; 3] {
    let cell = cell(row, cohort);
    [&cell.p99, &cell.errors, &cell.goodput].map(|effect| effect.change)
}

#[track_caller]
fn holds(effect: &Effect, truth: f64) {
    let [low, high] = effect.interval.unwrap_or_else(|| panic!("{effect:?}"));
    let value = effect.effect.unwrap();
    assert!(low <= value && value <= high, "{effect:?}");
    assert!(low <= truth && truth <= high, "not {truth}: {effect:?}");
}

const NOTHING: [Change; 3] = [Change::None; 3];

#[test]
fn a_fault_that_slows_one_cohort_is_seen_there_only() {
    let fate = |cohort: &str, _: &str, at| {
        if cohort == "buyers" && during(8.0, 12.0, at) { Fate { slower: 3.0, ..WELL } } else { WELL }
    };
    let matrix = Sale { fate, ..Sale::default() }.matrix();
    assert_eq!(matrix.cohorts, ["buyers", "bystanders", "readers"]);
    let row = &matrix.faults[0];
    assert_eq!((row.fault.as_str(), row.from_ms, row.until_ms), ("fault", 8_000.0, 12_000.0));
    assert_eq!((row.ended_by, row.overlapped_by.len()), (WindowEnd::Recovery, 0));
    assert_eq!(changes(row, "buyers"), [Change::Worse, Change::None, Change::None]);
    assert_eq!((changes(row, "bystanders"), changes(row, "readers")), (NOTHING, NOTHING));
    let buyers = cell(row, "buyers");
    holds(&buyers.p99, 3.0);
    holds(&buyers.goodput, 1.0);
    holds(&buyers.errors, 0.0);
    assert!((1_400..1_800).contains(&buyers.samples) && buyers.undisturbed > 5_000, "{buyers:?}");
    // The 2% slowest of the orders are the 1% slowest of all, half of which are pages: 39 ms.
    assert!((35e3..45e3).contains(&buyers.p99.without.unwrap()), "{buyers:?}");
    let readers = cell(row, "readers");
    assert_eq!(readers.goodput.missing.as_deref(), Some("it orders nothing"));
}

#[test]
fn a_fault_that_loses_answers_raises_errors_only() {
    let fate = |cohort: &str, _: &str, at| {
        if cohort == "readers" && during(8.0, 12.0, at) { Fate { lost: 0.1, ..WELL } } else { WELL }
    };
    let matrix = Sale { fate, ..Sale::default() }.matrix();
    let row = &matrix.faults[0];
    assert_eq!(changes(row, "readers"), [Change::None, Change::Worse, Change::None]);
    assert_eq!((changes(row, "buyers"), changes(row, "bystanders")), (NOTHING, NOTHING));
    holds(&cell(row, "readers").errors, 0.1);
    assert_eq!(cell(row, "readers").errors.without, Some(0.0));
}

#[test]
fn a_fault_that_refuses_orders_stops_goodput_only() {
    // A refusal is an answer, and as fast as any other.
    let fate = |cohort: &str, _: &str, at| {
        if cohort == "bystanders" && during(8.0, 12.0, at) { Fate { refused: 1.0, ..WELL } } else { WELL }
    };
    let matrix = Sale { fate, ..Sale::default() }.matrix();
    let row = &matrix.faults[0];
    assert_eq!(changes(row, "bystanders"), [Change::None, Change::None, Change::Worse]);
    assert_eq!((changes(row, "buyers"), changes(row, "readers")), (NOTHING, NOTHING));
    let goodput = &cell(row, "bystanders").goodput;
    // What was ordered just before is still acknowledged just after the injection.
    assert!(goodput.effect.unwrap() < 0.02 && goodput.interval.unwrap()[1] < 0.1, "{goodput:?}");
    assert!((190.0..210.0).contains(&goodput.without.unwrap()), "{goodput:?}");
}

#[test]
fn what_helps_is_better_and_not_worse() {
    let fate = |cohort: &str, _: &str, at| {
        let fate = Fate { slower: 3.0, lost: 0.2, ..WELL };
        if cohort == "buyers" && !during(8.0, 12.0, at) { fate } else { WELL }
    };
    let matrix = Sale { fate, ..Sale::default() }.matrix();
    assert_eq!(changes(&matrix.faults[0], "buyers"), [Change::Better; 3]);
}

#[test]
fn a_change_too_small_to_matter_is_shown_and_not_marked() {
    // Everything takes a quarter longer, and six in a thousand are lost: beyond chance, but nobody would mind.
    let fate =
        |_: &str, _: &str, at| if during(6.0, 16.0, at) { Fate { slower: 1.25, lost: 0.006, ..WELL } } else { WELL };
    let sale = Sale { faults: vec![("fault", 6.0, Some(16.0), Some(16.0))], fate, ..Sale::default() };
    let matrix = sale.matrix();
    let row = &matrix.faults[0];
    for cohort in ["buyers", "bystanders", "readers"] {
        assert_eq!(changes(row, cohort), NOTHING);
        assert!(cell(row, cohort).errors.interval.unwrap()[0] > 0.0, "{:?}", cell(row, cohort).errors);
    }
}

#[test]
fn too_few_samples_are_no_figures() {
    let sale = Sale { faults: vec![("blink", 8.0, Some(8.1), Some(8.1))], ..Sale::default() };
    let matrix = sale.matrix();
    let row = &matrix.faults[0];
    let cell = cell(row, "buyers");
    for effect in [&cell.p99, &cell.errors] {
        let why = effect.missing.as_deref().unwrap();
        assert!(why.starts_with("not enough samples") && why.ends_with("under the fault"), "{why}");
        assert_eq!((effect.effect, effect.interval, effect.change), (None, None, Change::None));
    }
    // A fault that lasts nearly all the time leaves nothing to hold it against.
    let sale = Sale { faults: vec![("always", 0.1, Some(19.9), Some(19.9))], ..Sale::default() };
    let matrix = sale.matrix();
    let cell = &matrix.faults[0].cells[0];
    assert!(cell.p99.missing.as_deref().unwrap().ends_with("undisturbed"), "{cell:?}");
    assert!(cell.goodput.missing.as_deref().unwrap().starts_with("not enough orders"), "{cell:?}");
}

#[test]
fn overlapping_faults_are_named() {
    let faults = vec![
        ("first", 4.0, Some(8.0), Some(8.2)),
        ("second", 7.0, Some(10.0), Some(10.0)),
        ("alone", 14.0, Some(18.0), Some(18.0)),
    ];
    // The second one slows everybody; the first one does nothing, and shares one second with it.
    let fate = |_: &str, _: &str, at| if during(7.0, 10.0, at) { Fate { slower: 4.0, ..WELL } } else { WELL };
    let matrix = Sale { faults, fate, ..Sale::default() }.matrix();
    let names: Vec<_> = matrix.faults.iter().map(|f| (f.fault.as_str(), f.overlapped_by.join(" "))).collect();
    let expected = [("first", "second"), ("second", "first"), ("alone", "")].map(|(id, by)| (id, by.to_string()));
    assert_eq!(names, expected);
    assert_eq!(changes(&matrix.faults[0], "buyers")[0], Change::Worse);
    holds(&cell(&matrix.faults[1], "buyers").p99, 4.0);
    assert_eq!(changes(&matrix.faults[2], "buyers"), NOTHING);
}

#[test]
fn after_a_fault_that_nobody_saw_recover_nothing_is_undisturbed() {
    // It goes on after it was healed; if that counted as undisturbed, its effect would shrink.
    let fate = |_: &str, _: &str, at| if at >= 8.0 { Fate { slower: 5.0, ..WELL } } else { WELL };
    let sale = Sale { faults: vec![("stays", 8.0, Some(12.0), None)], fate, ..Sale::default() };
    let matrix = sale.matrix();
    let row = &matrix.faults[0];
    assert_eq!((row.ended_by, row.until_ms), (WindowEnd::Healing, 12_000.0));
    holds(&cell(row, "buyers").p99, 5.0);
    let sale = Sale { faults: vec![("stays", 8.0, None, None)], fate, ..Sale::default() };
    let matrix = sale.matrix();
    let row = &matrix.faults[0];
    assert_eq!((row.ended_by, row.until_ms), (WindowEnd::EndOfLoad, 20_000.0));
    holds(&cell(row, "buyers").p99, 5.0);
}

/// Three times as many come from the fifth to the fifteenth second, and everybody waits six times as long.
fn in_spike(at: f64) -> bool {
    during(5.0, 15.0, at)
}

fn spike() -> Sale {
    Sale {
        rate: |at| if in_spike(at) { 3.0 } else { 1.0 },
        fate: |_, _, at| if in_spike(at) { Fate { slower: 6.0, lost: 0.05, ..WELL } } else { WELL },
        ..Sale::default()
    }
}

#[test]
fn a_fault_across_the_spike_is_not_taken_for_the_spike() {
    let phases = vec![("before", 0.0, 5.0), ("spike", 5.0, 15.0), ("after", 15.0, 20.0)];
    // Whether the scenario names its phases or not, and whether the fault lies within the spike or across its edge.
    for phases in [phases, Vec::new()] {
        for window in [(8.0, 12.0), (3.0, 8.0)] {
            let faults = vec![("fault", window.0, Some(window.1), Some(window.1))];
            let matrix = Sale { phases: phases.clone(), faults, ..spike() }.matrix();
            for cohort in ["buyers", "bystanders", "readers"] {
                let row = &matrix.faults[0];
                assert_eq!(changes(row, cohort), NOTHING, "{:?}", cell(row, cohort));
                assert_ne!(cell(row, cohort).p99.against, Likeness::Run);
                holds(&cell(row, cohort).p99, 1.0);
            }
        }
    }
}

#[test]
fn a_fault_within_the_spike_is_seen_through_it() {
    let fate = |cohort: &str, _: &str, at| {
        let slower = if in_spike(at) { 6.0 } else { 1.0 };
        let worse = if cohort == "buyers" && during(8.0, 12.0, at) { 2.5 } else { 1.0 };
        Fate { slower: slower * worse, ..WELL }
    };
    let matrix = Sale { fate, ..spike() }.matrix();
    let row = &matrix.faults[0];
    assert_eq!(changes(row, "buyers")[0], Change::Worse);
    holds(&cell(row, "buyers").p99, 2.5);
    assert_eq!(changes(row, "bystanders"), NOTHING);
}

#[test]
fn a_spike_that_lies_within_the_fault_is_held_against_nothing_alike_and_accuses_nobody() {
    let faults = vec![("all-of-it", 4.9, Some(15.1), Some(15.1))];
    let matrix = Sale { faults, ..spike() }.matrix();
    for cohort in ["buyers", "bystanders", "readers"] {
        let cell = cell(&matrix.faults[0], cohort);
        assert_eq!((cell.p99.against, cell.errors.against), (Likeness::Run, Likeness::Run));
        // The figures stand there, for who wants to judge by himself.
        assert!(cell.p99.effect.unwrap() > 3.0, "{cell:?}");
        assert_eq!(changes(&matrix.faults[0], cohort), NOTHING);
    }
}

#[test]
fn another_mix_of_steps_is_no_change() {
    // No order is made under the fault, and orders are the slow ones. Buyers would look faster, but who reads is not.
    let mut history = Sale::default().history();
    let order = history.names.find("order").unwrap();
    let lost = |op: &Op| op.step == order && (8_000_000..12_000_000).contains(&op.intended_us);
    history.ops.retain(|op| !lost(op) || op.user % 10 == 0);
    let matrix = summarize(&history, None, &rules(), Vec::new(), &[], "").blast_radius.unwrap();
    // Fewer samples than TP99 takes would hide it.
    let row = &matrix.faults[0];
    let [p99, errors, goodput] = changes(row, "buyers");
    assert_eq!((p99, errors, goodput), (Change::None, Change::None, Change::Worse));
}

#[test]
fn what_is_sold_out_is_not_held_against_what_can_be_bought() {
    let fate = |cohort: &str, step: &str, at: f64| {
        let gone = cohort == "buyers" && step == "order" && at >= 7.0;
        if gone { Fate { refused: 1.0, reason: "sold-out", slower: 0.1, ..WELL } } else { WELL }
    };
    let matrix = Sale { fate, ..Sale::default() }.matrix();
    let row = &matrix.faults[0];
    assert_eq!(changes(row, "buyers"), NOTHING, "{:?}", cell(row, "buyers"));
    assert!(cell(row, "buyers").goodput.missing.as_deref().unwrap().starts_with("not enough orders"));
}

#[test]
fn there_is_no_matrix_without_faults_or_cohorts() {
    assert_eq!(Sale { faults: Vec::new(), ..Sale::default() }.summary().blast_radius, None);
    assert_eq!(Sale { cohorts: &["buyers"], ..Sale::default() }.summary().blast_radius, None);
    // One that is planned and never injected has no window.
    let mut history = Sale::default().history();
    history.events.retain(|event| !matches!(event, Event::FaultInjected { .. }));
    assert_eq!(summarize(&history, None, &rules(), Vec::new(), &[], "").blast_radius, None);
}

#[test]
fn judging_again_gives_the_same_matrix() {
    let sale = spike();
    let text = |summary: &Summary| serde_json::to_string(&summary.blast_radius).unwrap();
    let first = sale.summary();
    assert_eq!(text(&first), text(&sale.summary()));
    let read: BlastRadius = serde_json::from_str(&text(&first)).unwrap();
    assert_eq!((read.cohorts.len(), read.faults.len()), (3, 1));
}

/// How often intervals exclude that nothing happened, and how often something is marked, where nothing did happen.
fn false_alarms(fate: fn(&str, &str, f64) -> Fate) -> [(usize, usize, usize); 3] {
    let mut counts = [(0, 0, 0); 3];
    for seed in 0..200 {
        let sale = Sale { seed, cohorts: &["buyers", "bystanders"], fate, ..Sale::default() };
        for cell in &sale.matrix().faults[0].cells {
            let figures = [(&cell.p99, 1.0), (&cell.errors, 0.0), (&cell.goodput, 1.0)];
            for (count, (effect, nothing)) in counts.iter_mut().zip(figures) {
                let Some([low, high]) = effect.interval else { continue };
                count.0 += 1;
                count.1 += usize::from(low > nothing || high < nothing);
                count.2 += usize::from(effect.change != Change::None);
            }
        }
    }
    counts
}

#[test]
fn a_fault_that_does_nothing_is_rarely_marked() {
    // A machine that is steady, and one that pauses at every moment whose hash says so, for everybody at once.
    let steady: fn(&str, &str, f64) -> Fate = |_, _, _| Fate { lost: 0.02, ..WELL };
    let pausing: fn(&str, &str, f64) -> Fate = |_, _, at| {
        let pause = ((at * 20.0) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59 == 0;
        if pause { Fate { slower: 8.0, lost: 0.3, ..WELL } } else { Fate { lost: 0.02, ..WELL } }
    };
    for (machine, fate) in [("steady", steady), ("pausing", pausing)] {
        for (name, (all, excluded, marked)) in ["TP99", "errors", "goodput"].into_iter().zip(false_alarms(fate)) {
            // Four hundred intervals of 95%: 20 on average, and 33 is three standard errors more.
            assert_eq!(all, 400, "{machine}: {name}");
            assert!(excluded <= 33, "{machine}: {excluded} of {all} intervals of {name} exclude that nothing happened");
            assert!(marked <= 20, "{machine}: {marked} of {all} figures of {name} are marked");
        }
    }
}
