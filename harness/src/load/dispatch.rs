//! What becomes of each planned arrival, as a function of the time that it is told: an idle buyer gets it, or it waits in line
//! until one is, or it is given back when its patience is over. Nothing is forgotten, and nothing happens twice.

use std::iter::Peekable;

use super::arrival::Arrival;
use super::pool::Pool;
use crate::history::Micros;

/// Arrivals that lie closer together than this are handed out at once; so much later than planned at most.
const SLOT_US: Micros = 100;
/// The longest time between two turns.
const LONGEST_US: Micros = 100_000;

/// A plan that is being handed out.
#[derive(Debug)]
pub struct Dispatch<P: Iterator<Item = Arrival>> {
    plan: Peekable<P>,
    patience: Micros,
    planned: u64,
}

/// What came of looking at the plan once.
#[derive(Debug)]
pub struct Turn {
    /// Arrivals that were never sent, and will not be.
    pub dropped: Vec<Arrival>,
    /// When to look again; none when everything is handed out, and nobody waits in line.
    pub next: Option<Micros>,
}

impl<P: Iterator<Item = Arrival>> Dispatch<P> {
    /// Nothing of the plan is handed out yet. `patience` is how long an arrival waits in line.
    pub fn new(plan: P, patience: Micros) -> Dispatch<P> {
        Dispatch { plan: plan.peekable(), patience, planned: 0 }
    }

    /// Hands out what is due.
    pub fn turn(&mut self, pool: &Pool, now: Micros) -> Turn {
        while let Some(arrival) = self.plan.next_if(|arrival| arrival.at_us <= now) {
            self.planned += 1;
            pool.hand_out(arrival);
        }
        let dropped = pool.out_of_patience(now - self.patience);
        let next_drop = pool.first_waiting().map(|at| at + self.patience + 1);
        let next = self.plan.peek().map(|arrival| arrival.at_us).into_iter().chain(next_drop).min();
        // No shorter than a slot: to arm the timer and to be woken costs as much as half a request, so dense arrivals share
        // one wake-up.
        Turn { dropped, next: next.map(|next| next.clamp(now + SLOT_US, now + LONGEST_US)) }
    }

    /// Nothing more is handed out, be the plan over or the run cut short: gives the arrivals that were planned until now, and
    /// those among them that are still in line, who are dropped.
    pub fn end(self, pool: &Pool) -> (u64, Vec<Arrival>) {
        (self.planned, pool.close())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// What became of the arrivals of one load on a clock that is only counted.
    struct Load {
        planned: u64,
        /// When each was sent, by its number; an arrival that is sent twice stands here twice.
        sent: Vec<(Arrival, Micros)>,
        /// The same of those that were dropped.
        dropped: Vec<(Arrival, Micros)>,
        cut_short: bool,
    }

    /// Buyers who take as long for each arrival as they are told, one after the other.
    struct Crowd<'a> {
        pool: &'a Pool,
        busy_until: Vec<Micros>,
        takes: std::iter::Cycle<std::slice::Iter<'a, Micros>>,
        gone: usize,
        sent: Vec<(Arrival, Micros)>,
    }

    impl Crowd<'_> {
        /// Everybody who is free by now takes what there is.
        fn act(&mut self, now: Micros) {
            for buyer in 0..self.busy_until.len() {
                while self.busy_until[buyer] <= now {
                    let next = std::pin::pin!(self.pool.next(buyer));
                    match next.poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Pending => break,
                        Poll::Ready(None) => {
                            self.busy_until[buyer] = Micros::MAX;
                            self.gone += 1;
                        }
                        Poll::Ready(Some(arrival)) => {
                            self.sent.push((arrival, now));
                            self.busy_until[buyer] = now + self.takes.next().unwrap();
                        }
                    }
                }
            }
        }

        fn next_free(&self, now: Micros) -> Option<Micros> {
            self.busy_until.iter().copied().filter(|until| *until > now && *until < Micros::MAX).min()
        }
    }

    fn drive(plan: &[Arrival], buyers: usize, takes: &[Micros], patience: Micros, stop_at: Option<Micros>) -> Load {
        let pool = Pool::new(buyers);
        let mut crowd =
            Crowd { pool: &pool, busy_until: vec![0; buyers], takes: takes.iter().cycle(), gone: 0, sent: Vec::new() };
        crowd.act(0);
        let mut dispatch = Dispatch::new(plan.iter().copied(), patience);
        let (mut now, mut dropped, mut cut_short) = (0, Vec::new(), false);
        loop {
            if stop_at.is_some_and(|at| now >= at) {
                cut_short = true;
                break;
            }
            let turn = dispatch.turn(&pool, now);
            dropped.extend(turn.dropped.into_iter().map(|arrival| (arrival, now)));
            crowd.act(now);
            let Some(next) = turn.next else { break };
            // Between two turns of the dispatcher the buyers go on by themselves.
            while let Some(free) = crowd.next_free(now).filter(|free| *free < next) {
                now = free;
                crowd.act(now);
            }
            now = next;
            crowd.act(now);
        }
        let (planned, rest) = dispatch.end(&pool);
        dropped.extend(rest.into_iter().map(|arrival| (arrival, now)));
        while crowd.gone < buyers {
            crowd.act(now);
            now = crowd.next_free(now).unwrap_or(now);
        }
        Load { planned, sent: crowd.sent, dropped, cut_short }
    }

    proptest! {
        #[test]
        fn whatever_is_planned_is_sent_once_or_dropped_once(
            gaps in proptest::collection::vec(prop_oneof![3 => 0i64..300, 2 => 0i64..5_000, 1 => 0i64..300_000], 0..200),
            buyers in 1usize..12,
            takes in proptest::collection::vec(prop_oneof![0i64..50, 0i64..20_000], 1..9),
            patience in prop_oneof![Just(0i64), 1i64..1_000, 1_000i64..2_000_000],
            stop_at in proptest::option::weighted(0.3, 0i64..3_000_000),
        ) {
            let mut at_us = 0;
            let plan: Vec<Arrival> = (0..).zip(&gaps).map(|(n, gap)| {
                at_us += gap;
                Arrival { at_us, cohort: 0, n }
            }).collect();
            let load = drive(&plan, buyers, &takes, patience, stop_at);

            prop_assert_eq!(load.planned, (load.sent.len() + load.dropped.len()) as u64);
            if !load.cut_short {
                prop_assert_eq!(load.planned, plan.len() as u64);
            }
            let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
            for (arrival, at) in load.sent.iter().chain(&load.dropped) {
                *seen.entry(arrival.n).or_default() += 1;
                prop_assert_eq!(*arrival, plan[arrival.n as usize], "its intended start stays what it was");
                prop_assert!(*at >= arrival.at_us, "{:?} at {}", arrival, at);
            }
            // The first ones of the plan, each once.
            prop_assert!(seen.into_iter().eq((0..load.planned).map(|n| (n, 1))));
            if !load.cut_short {
                prop_assert!(load.dropped.iter().all(|(arrival, at)| at - arrival.at_us > patience));
            }
        }
    }

    #[test]
    fn an_arrival_waits_as_long_as_its_patience_and_no_longer() {
        let plan: Vec<Arrival> = (0..3).map(|n| Arrival { at_us: 0, cohort: 0, n }).collect();
        let numbers =
            |list: &[(Arrival, Micros)]| list.iter().map(|(arrival, at)| (arrival.n, *at)).collect::<Vec<_>>();
        // One buyer, whom the first takes 5 ms: the second has the patience to wait for that, and the third has not.
        let load = drive(&plan, 1, &[5_000], 6_000, None);
        assert_eq!((numbers(&load.sent), numbers(&load.dropped)), (vec![(0, 0), (1, 5_000)], vec![(2, 6_001)]));
    }
}
