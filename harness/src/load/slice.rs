//! A generator's slice of the schedule, where several drive a run together.
//!
//! Arrivals keep the number that they have in the whole plan. Everything about a buyer follows from that number and the
//! seed, so slices never share a purchase, and together they send what one generator would have sent.

use std::fmt;
use std::str::FromStr;

use super::arrival::{Arrival, Plan};
use super::turns::Turn;

/// Generators of one run at most.
const MOST: u32 = 1_000;

/// Every n-th arrival of the plan, or those that come in the turns of one side of a duet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    index: u32,
    count: u32,
    turn: Option<Turn>,
}

impl Slice {
    /// All arrivals, for a generator that is alone.
    pub const WHOLE: Slice = Slice { index: 1, count: 1, turn: None };

    /// The slice of shard `index` of `count`; shards count from 1.
    pub fn new(index: u32, count: u32) -> Option<Slice> {
        ((1..=MOST).contains(&count) && (1..=count).contains(&index)).then_some(Slice { index, count, turn: None })
    }

    /// All arrivals that come while it is one side's turn.
    pub fn in_turns(turn: Turn) -> Slice {
        Slice { turn: Some(turn), ..Slice::WHOLE }
    }

    /// The number of the shard, from 1.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many shards there are.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the arrival belongs to the slice.
    pub fn has(self, arrival: &Arrival) -> bool {
        self.turn.is_none_or(|turn| turn.has(arrival.at_us)) && self.has_number(arrival.n)
    }

    /// Whether the arrival with this number belongs to the shard, whose slice knows no turns.
    pub fn has_number(self, n: u64) -> bool {
        n % u64::from(self.count) == u64::from(self.index - 1)
    }

    /// The slice's share of a number of virtual buyers, rounded up, so that all slices have no fewer than one generator.
    pub fn share(self, buyers: u32) -> u32 {
        buyers.div_ceil(self.count)
    }

    /// The arrivals of the slice.
    pub fn of(self, plan: Plan) -> Sliced {
        Sliced { plan, slice: self }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Slice {
    type Err = String;

    fn from_str(text: &str) -> Result<Slice, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        numbers.and_then(|(index, count)| Slice::new(index, count)).ok_or_else(|| {
            format!("write the shard's number and how many there are, from 1/1 to {MOST}/{MOST}, such as 2/4")
        })
    }
}

/// The arrivals of one slice, in order.
#[derive(Debug, Clone)]
pub struct Sliced {
    plan: Plan,
    slice: Slice,
}

impl Iterator for Sliced {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let slice = self.slice;
        self.plan.find(|arrival| slice.has(arrival))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::arrival::{Arrivals, Crowd, Flat};
    use crate::scenario::value::{ClockSkew, Dur};

    proptest! {
        #[test]
        fn slices_are_disjoint_and_together_the_whole_plan(rates in proptest::collection::vec(1.0_f64..2_000.0, 1..4), seed: u64, count in 1_u32..9) {
            let poisson = |rate: &f64| Arrivals::Poisson(Flat { rate: *rate, from: Dur::millis(10), lasts: Dur::millis(700) });
            let crowd = |rate: &f64| Crowd { arrivals: vec![poisson(rate)], share: *rate, clock_skew: ClockSkew { least_us: -50_000, most_us: 9_000 } };
            let cohorts: Vec<Crowd> = rates.iter().map(crowd).collect();
            let plan = Plan::new(&cohorts, &[poisson(&300.0)], seed);
            let mut together = Vec::new();
            for index in 1..=count {
                let slice: Vec<Arrival> = Slice::new(index, count).unwrap().of(plan.clone()).collect();
                prop_assert!(slice.is_sorted_by_key(|arrival| (arrival.at_us, arrival.n)));
                together.extend(slice);
            }
            together.sort_by_key(|arrival| arrival.n);
            // Equal as lists: nothing is missing, nothing twice, and each keeps its number, time and cohort.
            prop_assert_eq!(together, plan.collect::<Vec<_>>());
        }

        #[test]
        fn shares_of_the_buyers_are_no_fewer_than_one_generator_has(buyers in 1_u32..50_000, count in 1_u32..=MOST) {
            let shares: u32 = (1..=count).map(|index| Slice::new(index, count).unwrap().share(buyers)).sum();
            prop_assert!(shares >= buyers && shares < buyers + count);
        }
    }

    #[test]
    fn what_names_a_slice() {
        assert_eq!("2/4".parse(), Ok(Slice { index: 2, count: 4, turn: None }));
        assert_eq!("2/4".parse::<Slice>().unwrap().to_string(), "2/4");
        for bad in ["0/4", "5/4", "1/0", "2", "a/b", "1/1001", "-1/2", ""] {
            assert!(bad.parse::<Slice>().unwrap_err().contains("such as 2/4"), "{bad}");
        }
    }
}
