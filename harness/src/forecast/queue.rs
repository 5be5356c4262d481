//! An open network of queues in a row, simulated.
//!
//! Each station has nodes, each node some servers and one line in front of them, served first come, first served;
//! requests are dealt out to the nodes in turns. What a request waits is known once it is known when a server is free
//! (Kiefer and Wolfowitz, *On the theory of queues with many servers*, 1955). So an event is a request at a station,
//! and events are taken in the order of time.
//!
//! Service times are Weibull: `mean · Eᵃ / Γ(1 + a)` for an exponential E. One number `a` says how much they vary,
//! from 0 (all the same) over 1 (exponential) to what has a heavier tail; and the same E under another `a` gives a
//! comparable time, so that two simulations differ by what was changed and not by chance (common random numbers).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use statrs::function::gamma::gamma;

use crate::random;

/// A station: nodes of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// Nodes; requests take turns.
    pub nodes: usize,
    /// Servers of each.
    pub servers: usize,
    /// The mean service time of a request, in seconds.
    pub mean_s: f64,
    /// How much it varies: the exponent `a`.
    pub variability: f64,
    /// Whether only orders come here, and only while there is stock: the lock of the item's row.
    pub orders_only: bool,
}

/// The squared coefficient of variation that belongs to an exponent.
pub fn variation(variability: f64) -> f64 {
    gamma(1.0 + 2.0 * variability) / gamma(1.0 + variability).powi(2) - 1.0
}

/// A step of the journey.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// How often an arrival makes it, in the mean.
    pub times: f64,
    /// Whether it orders.
    pub order: bool,
    /// From its end, as it was simulated, to the beginning of the next, in seconds.
    pub then_s: f64,
}

/// Who comes when, and what they do, one request after the other.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Moments of arrival in seconds, in order.
    pub arrivals: &'a [f64],
    /// What each of them does.
    pub steps: &'a [Step],
    /// So many orders find stock; those after them never come to the row.
    pub stock: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Waited {
    /// By step: what each request waited in all lines together, in seconds.
    pub waits: Vec<Vec<f64>>,
    /// The mean wait at each station over all requests, in seconds.
    pub by_station: Vec<f64>,
    /// Orders that found stock.
    pub orders: u64,
    /// When the first and the last of them was through, in seconds.
    pub ordered_s: [f64; 2],
}

/// A request on its way; ordered by time, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ns: u64,
    arrival: u32,
    step: u16,
    station: u16,
    /// Requests of the same step that follow it.
    left: u16,
    /// Whether it is an order that finds stock.
    sells: bool,
    waited_ns: u64,
}

/// A simulation under way.
struct Simulation<'a> {
    demand: &'a Demand<'a>,
    stations: &'a [Station],
    /// By station, node and server: when it is free, in nanoseconds.
    free: Vec<Vec<BinaryHeap<Reverse<u64>>>>,
    /// By station: whose turn it is, and what was waited there.
    turn: Vec<usize>,
    waited_ns: Vec<u64>,
    /// Factors of the service times, in nanoseconds.
    scale: Vec<f64>,
    under_way: BinaryHeap<Reverse<Event>>,
    services: ChaCha8Rng,
    steps: ChaCha8Rng,
    out: Waited,
}

/// Simulates them. The same seed gives the same draws.
pub fn simulate(demand: &Demand<'_>, stations: &[Station], seed: u64) -> Waited {
    let servers = |station: &Station| std::iter::repeat_n(Reverse(0), station.servers.max(1)).collect();
    let mut simulation = Simulation {
        demand,
        stations,
        free: stations.iter().map(|station| vec![servers(station); station.nodes.max(1)]).collect(),
        turn: vec![0; stations.len()],
        waited_ns: vec![0; stations.len()],
        scale: stations.iter().map(|s| s.mean_s * 1e9 / gamma(1.0 + s.variability)).collect(),
        under_way: BinaryHeap::new(),
        services: random::stream(seed, 0),
        steps: random::stream(seed, 1),
        out: Waited {
            waits: vec![Vec::new(); demand.steps.len()],
            ordered_s: [f64::INFINITY, 0.0],
            ..Waited::default()
        },
    };
    for (number, at) in demand.arrivals.iter().enumerate() {
        let at_ns = (at * 1e9) as u64;
        simulation.work_until(at_ns);
        simulation.begin(at_ns, number as u32, 0);
    }
    simulation.work_until(u64::MAX);
    let mut out = simulation.out;
    let requests = out.waits.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    out.by_station = simulation.waited_ns.iter().map(|ns| *ns as f64 / 1e9 / requests).collect();
    out
}

impl Simulation<'_> {
    /// Takes all events up to a moment.
    fn work_until(&mut self, until_ns: u64) {
        while self.under_way.peek().is_some_and(|Reverse(event)| event.at_ns <= until_ns) {
            let Some(Reverse(mut event)) = self.under_way.pop() else { break };
            if event.station == 0 {
                let order = self.demand.steps[usize::from(event.step)].order;
                event.sells = order && self.out.orders < self.demand.stock;
                self.out.orders += u64::from(event.sells);
            }
            match self.station(usize::from(event.station), event.sells) {
                None => self.done(event),
                Some(index) => self.serve(event, index),
            }
        }
    }

    /// The first station from this one on that such a request comes to.
    fn station(&self, from: usize, sells: bool) -> Option<usize> {
        (from..self.stations.len()).find(|index| sells || !self.stations[*index].orders_only)
    }

    /// The first step from this one on that the arrival makes.
    fn begin(&mut self, at_ns: u64, arrival: u32, from: usize) {
        for (index, step) in self.demand.steps.iter().enumerate().skip(from) {
            let whole = step.times.floor();
            let times = whole as u16 + u16::from(self.steps.random::<f64>() < step.times - whole);
            if times > 0 {
                return self.under_way.push(Reverse(Event {
                    at_ns,
                    arrival,
                    step: index as u16,
                    station: 0,
                    left: times - 1,
                    sells: false,
                    waited_ns: 0,
                }));
            }
        }
    }

    fn serve(&mut self, event: Event, index: usize) {
        let exponential = -(1.0 - self.services.random::<f64>()).ln();
        let takes = (self.scale[index] * exponential.powf(self.stations[index].variability)) as u64;
        let nodes = &mut self.free[index];
        let node = self.turn[index] % nodes.len();
        self.turn[index] += 1;
        let Some(mut server) = nodes[node].peek_mut() else { return };
        let start = server.0.max(event.at_ns);
        *server = Reverse(start + takes);
        drop(server);
        let wait = start - event.at_ns;
        self.waited_ns[index] += wait;
        let event = Event { at_ns: start + takes, waited_ns: event.waited_ns + wait, ..event };
        match self.station(index + 1, event.sells) {
            // Nothing is decided when a request is done, so that need not wait for its time.
            None => self.done(event),
            Some(next) => self.under_way.push(Reverse(Event { station: next as u16, ..event })),
        }
    }

    fn done(&mut self, event: Event) {
        let step = usize::from(event.step);
        self.out.waits[step].push(event.waited_ns as f64 / 1e9);
        if event.sells {
            let at_s = event.at_ns as f64 / 1e9;
            let [first, last] = self.out.ordered_s;
            self.out.ordered_s = [first.min(at_s), last.max(at_s)];
        }
        let at_ns = event.at_ns + (self.demand.steps[step].then_s * 1e9) as u64;
        if event.left > 0 {
            let again = Event { at_ns, station: 0, left: event.left - 1, waited_ns: 0, ..event };
            self.under_way.push(Reverse(again));
        } else {
            self.begin(at_ns, event.arrival, step + 1);
        }
    }
}

/// The quantile of values, which are put in order for it; 0 of none.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len()) - 1;
    *values.select_nth_unstable_by(rank, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals of a Poisson process with this rate.
    fn poisson(rate: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut rng = random::stream(seed, 9);
        let mut at = 0.0;
        let mut next = || {
            at -= (1.0 - rng.random::<f64>()).ln() / rate;
            at
        };
        (0..count).map(|_| next()).collect()
    }

    /// Everybody makes one request.
    fn once(arrivals: &[f64]) -> Demand<'_> {
        Demand { arrivals, steps: &[Step { times: 1.0, order: false, then_s: 0.0 }], stock: 0 }
    }

    /// Simulated waits of a single station with mean service time 1, once the beginning is forgotten.
    fn waits(load: f64, servers: usize, variability: f64) -> Vec<f64> {
        let arrivals = poisson(load * servers as f64, 600_000, 3);
        let station = Station { nodes: 1, servers, mean_s: 1.0, variability, orders_only: false };
        simulate(&once(&arrivals), &[station], 5).waits[0].split_off(20_000)
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// The probability that all of `c` servers are busy (Erlang's C formula) at a load of ρ for each.
    fn erlang_c(c: usize, rho: f64) -> f64 {
        let a = rho * c as f64;
        let (mut term, mut sum) = (1.0, 1.0);
        for n in 1..c {
            term *= a / n as f64;
            sum += term;
        }
        let last = term * a / c as f64 / (1.0 - rho);
        last / (sum + last)
    }

    #[test]
    fn one_exponential_server_waits_as_the_formula_says() {
        for rho in [0.5, 0.8] {
            let mut seen = waits(rho, 1, 1.0);
            // P(W > t) = ρ exp(−(1 − ρ) t).
            let truth = (rho / 0.01).ln() / (1.0 - rho);
            let p99 = quantile(&mut seen, 0.99);
            assert!((p99 / truth - 1.0).abs() < 0.05, "{p99} for {truth} at {rho}");
        }
    }

    #[test]
    fn several_exponential_servers_wait_as_erlang_says() {
        for (servers, rho) in [(2, 0.8), (8, 0.8)] {
            let mut seen = waits(rho, servers, 1.0);
            // P(W > t) = C exp(−c (1 − ρ) t).
            let truth = (erlang_c(servers, rho) / 0.01).ln() / (servers as f64 * (1.0 - rho));
            let p99 = quantile(&mut seen, 0.99);
            assert!((p99 / truth - 1.0).abs() < 0.07, "{p99} for {truth} with {servers} at {rho}");
            let (mean, truth) = (mean(&seen), erlang_c(servers, rho) / (servers as f64 * (1.0 - rho)));
            assert!((mean / truth - 1.0).abs() < 0.05, "{mean} for {truth} with {servers} at {rho}");
        }
    }

    #[test]
    fn constant_service_waits_as_erlang_says_of_it() {
        let rho: f64 = 0.8;
        let mut seen = waits(rho, 1, 0.0);
        // P(W ≤ t) = (1 − ρ) Σ (−ρ(t − k))ᵏ / k! · exp(ρ(t − k)), over k ≤ t (Erlang, 1909).
        let below = |t: f64| {
            let term = |k: i32| {
                let x = rho * (t - f64::from(k));
                (-x).powi(k) / (1..=k).map(f64::from).product::<f64>() * x.exp()
            };
            (1.0 - rho) * (0..=t.floor() as i32).map(term).sum::<f64>()
        };
        let p99 = quantile(&mut seen, 0.99);
        assert!((below(p99) - 0.99).abs() < 0.001, "{p99} is the quantile {}", below(p99));
        // Pollaczek and Khinchine: half the wait of exponential service.
        assert!((mean(&seen) / (rho / 2.0 / (1.0 - rho)) - 1.0).abs() < 0.04, "{}", mean(&seen));
    }

    #[test]
    fn the_mean_wait_grows_with_the_variation_as_pollaczek_and_khinchine_say() {
        let (rho, variability) = (0.7, 1.5);
        let truth = rho / (1.0 - rho) * (1.0 + variation(variability)) / 2.0;
        let seen = mean(&waits(rho, 1, variability));
        assert!((seen / truth - 1.0).abs() < 0.08, "{seen} for {truth}");
        assert!((variation(1.0) - 1.0).abs() < 1e-9 && variation(0.0).abs() < 1e-9);
    }

    #[test]
    fn nodes_that_take_turns_do_worse_than_one_line_and_better_than_by_chance() {
        let arrivals = poisson(1.6, 200_000, 4);
        let with = |nodes, servers| {
            let station = Station { nodes, servers, mean_s: 1.0, variability: 1.0, orders_only: false };
            mean(&simulate(&once(&arrivals), &[station], 5).waits[0])
        };
        let (one_line, turns) = (with(1, 2), with(2, 1));
        let by_chance = 0.8 / 0.2;
        assert!(one_line < turns && turns < by_chance, "{one_line}, {turns}, {by_chance}");
    }

    #[test]
    fn every_request_is_served_and_only_orders_that_find_stock_come_to_the_row() {
        let arrivals = poisson(10.0, 1_000, 4);
        let steps = [Step { times: 1.5, order: false, then_s: 0.01 }, Step { times: 1.0, order: true, then_s: 0.0 }];
        let station = |mean_s, orders_only| Station { nodes: 1, servers: 1, mean_s, variability: 1.0, orders_only };
        let seen = |stock| {
            let demand = Demand { arrivals: &arrivals, steps: &steps, stock };
            simulate(&demand, &[station(0.02, false), station(0.07, true)], 1)
        };
        let all = seen(u64::MAX);
        assert!((1_400..1_600).contains(&all.waits[0].len()) && all.waits[1].len() == 1_000, "{all:?}");
        let requests = (all.waits[0].len() + 1_000) as f64;
        let added: f64 = all.by_station.iter().sum::<f64>() * requests;
        let waited: f64 = all.waits.iter().flatten().sum();
        assert!(
            (added / waited - 1.0).abs() < 1e-6 && all.orders == 1_000 && all.ordered_s[1] > 90.0,
            "{added} {waited}"
        );
        let few = seen(30);
        assert!(few.orders == 30 && few.ordered_s[1] < 10.0 && few.by_station[1] < all.by_station[1] / 5.0, "{few:?}");
    }
}
