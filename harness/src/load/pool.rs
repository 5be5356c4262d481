//! The pool of virtual buyers: hands due arrivals to idle buyers, last in first out, and keeps the rest in order.
//!
//! Last in first out keeps few connections hot instead of many lukewarm ones. An arrival that finds nobody idle waits in
//! line with its intended start unchanged; when its patience is over it is given back as dropped, never forgotten.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::arrival::Arrival;
use crate::history::Micros;

#[derive(Debug, Default)]
struct Inner {
    idle: Vec<usize>,
    waiting: VecDeque<Arrival>,
    places: Vec<Place>,
    closed: bool,
    busy_max: usize,
}

/// Where a buyer waits for the next arrival.
#[derive(Debug, Clone, Default)]
struct Place {
    idle: bool,
    handed: Option<Arrival>,
    waker: Option<Waker>,
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Inner>,
}

impl Pool {
    /// A pool for `buyers` virtual buyers, none of whom has come yet.
    pub fn new(buyers: usize) -> Pool {
        let inner = Inner { places: vec![Place::default(); buyers], ..Inner::default() };
        Pool { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic: each statement under the lock stands by itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An arrival is due: an idle buyer gets it, else it waits in line.
    pub fn hand_out(&self, arrival: Arrival) {
        let mut inner = self.lock();
        if let Some(buyer) = inner.idle.pop() {
            let place = &mut inner.places[buyer];
            place.handed = Some(arrival);
            let waker = place.waker.take();
            let busy = inner.places.len() - inner.idle.len();
            inner.busy_max = inner.busy_max.max(busy);
            drop(inner);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else {
            inner.waiting.push_back(arrival);
            inner.busy_max = inner.places.len();
        }
    }

    /// The next arrival for a buyer who is done with the last one; none when the pool is closed and nothing waits.
    pub async fn next(&self, buyer: usize) -> Option<Arrival> {
        poll_fn(|cx| self.poll_next(cx, buyer)).await
    }

    fn poll_next(&self, cx: &mut Context<'_>, buyer: usize) -> Poll<Option<Arrival>> {
        let mut inner = self.lock();
        let place = &mut inner.places[buyer];
        if let Some(arrival) = place.handed.take() {
            place.idle = false;
            return Poll::Ready(Some(arrival));
        }
        // Whoever waits here already is not called for those in line: there is nobody in line while somebody is idle.
        if !place.idle {
            if let Some(arrival) = inner.waiting.pop_front() {
                return Poll::Ready(Some(arrival));
            }
            if !inner.closed {
                inner.places[buyer].idle = true;
                inner.idle.push(buyer);
            }
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        inner.places[buyer].waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Arrivals that have waited since before `before_us`; they are taken out of the line.
    pub fn out_of_patience(&self, before_us: Micros) -> Vec<Arrival> {
        let mut inner = self.lock();
        let count = inner.waiting.iter().take_while(|a| a.at_us < before_us).count();
        inner.waiting.drain(..count).collect()
    }

    /// Intended start of the first in line.
    pub fn first_waiting(&self) -> Option<Micros> {
        self.lock().waiting.front().map(|a| a.at_us)
    }

    /// No more arrivals: buyers finish what they have and go. Returns what was still in line.
    pub fn close(&self) -> Vec<Arrival> {
        let mut inner = self.lock();
        inner.closed = true;
        let wakers: Vec<Waker> = inner.places.iter_mut().filter_map(|place| place.waker.take()).collect();
        let rest = inner.waiting.drain(..).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        rest
    }

    /// Buyers that the pool has room for.
    pub fn size(&self) -> usize {
        self.lock().places.len()
    }

    /// Buyers who have come and are idle.
    pub fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    /// Most buyers busy at once since [`Self::reset_busy`].
    pub fn busy_max(&self) -> usize {
        self.lock().busy_max
    }

    /// Starts counting the busy buyers anew.
    pub fn reset_busy(&self) {
        self.lock().busy_max = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn arrival(n: u64) -> Arrival {
        Arrival { at_us: n as Micros * 1_000, cohort: 0, n }
    }

    #[tokio::test]
    async fn every_arrival_is_handed_out_once_or_given_back() {
        let pool = Arc::new(Pool::new(3));
        let buyers: Vec<_> = (0..3)
            .map(|buyer| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    while let Some(arrival) = pool.next(buyer).await {
                        got.push(arrival.n);
                        tokio::task::yield_now().await;
                    }
                    got
                })
            })
            .collect();
        while pool.idle() < 3 {
            tokio::task::yield_now().await;
        }
        for n in 0..100 {
            pool.hand_out(arrival(n));
        }
        let dropped = pool.out_of_patience(20_000);
        while pool.first_waiting().is_some() {
            tokio::task::yield_now().await;
        }
        let rest = pool.close();
        let mut all: Vec<u64> = dropped.iter().chain(&rest).map(|a| a.n).collect();
        for buyer in buyers {
            all.extend(buyer.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(dropped.iter().all(|a| a.n < 20) && !dropped.is_empty());
        assert_eq!(pool.busy_max(), 3);
    }

    #[tokio::test]
    async fn the_last_to_become_idle_is_the_first_to_be_called() {
        let pool = Arc::new(Pool::new(2));
        let (p0, p1) = (pool.clone(), pool.clone());
        let first = tokio::spawn(async move { p0.next(0).await });
        while pool.idle() < 1 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn(async move { p1.next(1).await });
        while pool.idle() < 2 {
            tokio::task::yield_now().await;
        }
        pool.hand_out(arrival(7));
        assert_eq!(second.await.unwrap().map(|a| a.n), Some(7));
        pool.close();
        assert_eq!(first.await.unwrap(), None);
    }
}
