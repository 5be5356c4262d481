//! I8: stock comes back exactly once: after it was taken, not before the hold's time is up, and for every order that ended.

use super::index::{Ack, Books, DurableOrder, says_expired};
use super::standing::{grain, promised_until, says_who, touched};
use super::tally::{Tally, count, seconds, show, show_all};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, LedgerEntry, OrderState, Outcome, Role};

pub(super) struct Releases;

impl Check for Releases {
    fn id(&self) -> &'static str {
        "I8"
    }

    fn name(&self) -> &'static str {
        "every release once"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let (mut releases, mut unreleased) = (0, 0);
        if let Some(books) = &case.index.books {
            releases =
                books.brief.iter().filter(|row| row.kind == EntryKind::Release && row.item.is_some()).count() as i64;
            for order in books.orders.iter().filter(|order| order.on_sale) {
                let released = order.count(EntryKind::Release) > 0;
                if released || order.mixed {
                    judge_rows(books, order, &mut tally);
                }
                if let Some(reserve) = order.reserve {
                    if released {
                        early(case, books, order, &mut tally);
                        unasked(case, books, order, reserve, &mut tally);
                    }
                    too_short(case, books, order, reserve, &mut tally);
                    unreleased += i64::from(!state_agrees(books, order, reserve, releases > 0, &mut tally));
                }
            }
        }
        for ack in &case.index.acks {
            refused_as_expired(case, ack, &mut tally);
        }
        if unreleased > 0 {
            tally.gap(format!(
                "{} ended, and the ledger has not one release row: have the audit give them",
                count(unreleased, "order")
            ));
        }
        tally.finish(self, format!("{}, each after its reservation and once", count(releases, "release")))
    }
}

fn judge_rows(books: &Books<'_>, order: &DurableOrder<'_>, tally: &mut Tally<'_>) {
    let mut out = 0i64;
    for row in books.rows_of(order) {
        match row.kind {
            EntryKind::Reserve => out += row.quantity,
            EntryKind::Release if row.quantity <= 0 => {
                show(books, order, row, "releases of no or negative quantity", tally, || {
                    format!("order {} gave back {}", order.id, count(row.quantity, "unit"))
                })
            }
            EntryKind::Release => {
                if order.reserve.is_none() {
                    show(books, order, row, "releases of orders that are not in the ledger", tally, || {
                        format!(
                            "{} came back from order {}, which never took any",
                            count(row.quantity, "unit"),
                            order.id
                        )
                    });
                } else if order.reserve.is_some_and(|reserve| reserve.seq > row.seq) {
                    show(books, order, row, "releases before their reservation", tally, || {
                        format!("order {} gave back its stock before it took it", order.id)
                    });
                } else if row.quantity > out {
                    show(books, order, row, "releases of more than was out", tally, || {
                        let given = count(row.quantity, "unit");
                        let was = if out <= 0 {
                            "nothing was out any more: released twice".to_owned()
                        } else {
                            format!("{out} were out")
                        };
                        format!("order {} gave back {given} at ledger row {}, and {was}", order.id, row.seq)
                    });
                }
                out -= row.quantity;
            }
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
        }
        let of_another = order.reserve.is_some_and(|reserve| reserve.item != row.item);
        if of_another && matches!(row.kind, EntryKind::Reserve | EntryKind::Release) {
            show(books, order, row, "rows of another item than their order", tally, || {
                format!("ledger row {} moves item {}, which order {} is not about", row.seq, row.item, order.id)
            });
        }
    }
}

/// A hold that ends by itself ends no earlier than promised. Both stamps are of the service, maybe of two machines.
fn early(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, tally: &mut Tally<'_>) {
    let Some(reserve) = order.reserve else { return };
    let Some(item) = case.index.item(reserve.item) else { return };
    let by_state = order.state == OrderState::Expired;
    let mut last = reserve;
    for row in books.rows_of(order) {
        match row.kind {
            EntryKind::Reserve => last = row,
            EntryKind::Release if says_expired(row) || by_state && row.reason.is_none() => {
                let promised = last.at_unix_us.saturating_add(case.rules.items[item].hold_us);
                let ends = last.expires_at_unix_us.map_or(promised, |at| at.min(promised));
                if row.at_unix_us < ends.saturating_sub(case.rules.epsilon_us.saturating_mul(2)) {
                    show(books, order, row, "holds that expired before their time", tally, || {
                        let (at, ends) = (case.since_epoch(row.at_unix_us), case.since_epoch(ends));
                        format!(
                            "the hold of order {} expired at {}, and was promised until {}",
                            order.id,
                            seconds(at),
                            seconds(ends)
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

/// Whether the buyer was told that an order is held for them; what they were told of it later is another thing.
fn was_held(case: &Case<'_>, ack: &Ack) -> bool {
    let told = &case.history.ops[ack.op as usize];
    told.role != Role::Lookup && told.state == OrderState::Held
}

/// A hold that was acknowledged stays until its time is up, unless its buyer did something about it: whatever the service
/// calls the release, nobody had asked for it.
fn unasked(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry, tally: &mut Tally<'_>) {
    let Some(ack) = case.index.ack_of_order(order).filter(|ack| case.index.whole() && was_held(case, ack)) else {
        return;
    };
    let Some(row) = books.rows_of(order).find(|row| row.kind == EntryKind::Release) else { return };
    let expired = says_expired(row) || order.state == OrderState::Expired && row.reason.is_none();
    // What calls itself expired is judged by its own stamps.
    if expired || order.count(EntryKind::Reserve) != 1 {
        return;
    }
    let intent = &case.index.intents[ack.intent as usize];
    let Some(ends) = promised_until(case, intent, Some(reserve)) else { return };
    let at = case.since_epoch(row.at_unix_us);
    let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(at, at));
    let touched = touched(case, ack, at.saturating_add(slack));
    if touched || at.saturating_add(grain(row.at_unix_us)) >= ends {
        return;
    }
    show(books, order, row, "holds given back early though nobody asked", tally, || {
        let hold = case.index.item(reserve.item).map_or(0, |item| case.rules.items[item].hold_us);
        format!(
            "order {} was given back at {}, and its buyer had done nothing about it: it was made at {}, and a hold lasts {}",
            order.id,
            seconds(at),
            seconds(case.since_epoch(reserve.at_unix_us)),
            seconds(hold)
        )
    });
}

/// A hold is stamped to last as long as the sale promises, or to the end of the sale. What became of the stamp of an order
/// that was paid or cancelled is the service's business.
fn too_short(
    case: &Case<'_>,
    books: &Books<'_>,
    order: &DurableOrder<'_>,
    reserve: &LedgerEntry,
    tally: &mut Tally<'_>,
) {
    let Some(until) = reserve.expires_at_unix_us.filter(|at| *at > 0 && case.index.whole()) else { return };
    let untouched = matches!(order.state, OrderState::Held | OrderState::Expired);
    let Some(intent) = order.intent.filter(|_| untouched && order.count(EntryKind::Reserve) == 1) else { return };
    let intent = &case.index.intents[intent as usize];
    let Some(ends) = promised_until(case, intent, Some(reserve)) else { return };
    if case.since_epoch(until).saturating_add(grain(until)) >= ends {
        return;
    }
    show(books, order, reserve, "holds shorter than the sale promises", tally, || {
        let hold = case.index.item(reserve.item).map_or(0, |item| case.rules.items[item].hold_us);
        format!(
            "order {} was made at {} and stamped to be held until {}, and a hold lasts {}",
            order.id,
            seconds(case.since_epoch(reserve.at_unix_us)),
            seconds(case.since_epoch(until)),
            seconds(hold)
        )
    });
}

/// Nobody is told that a hold is over before it can be. Judged from the buyer's replies alone, if this is the first that
/// they did about the order.
fn refused_as_expired(case: &Case<'_>, ack: &Ack, tally: &mut Tally<'_>) {
    if !case.rules.set_up || !case.index.whole() || !was_held(case, ack) {
        return;
    }
    let intent = &case.index.intents[ack.intent as usize];
    let Some(ends) = promised_until(case, intent, None) else { return };
    let Some(n) = case.index.actions_of(ack).next() else { return };
    let op = &case.history.ops[n as usize];
    let words = ["expired", "hold-expired", "order-expired", "reservation-expired"];
    let expired = op.outcome == Outcome::Fail && !says_who(op) && words.contains(&case.history.names.get(op.reason));
    let loose = case.index.loose.get(&op.user).is_some_and(|at| *at <= op.completed_us);
    let another =
        case.index.actions_of(ack).skip(1).any(|n| case.history.ops[n as usize].invoked_us <= op.completed_us);
    if op.role != Role::Pay || !expired || loose || another || op.completed_us >= ends {
        return;
    }
    tally.violation("payments refused as too late before the hold's time", |case, witness| {
        show_all(case, ack, witness);
        witness.bad_op(case, n);
        format!(
            "{} paid {} at {} and was told that its hold had expired, and it was asked for at {} and holds last {}",
            case.user(op.user),
            case.order(ack.order),
            seconds(op.invoked_us),
            seconds(intent.first_invoked),
            seconds(case.index.item(intent.item).map_or(0, |item| case.rules.items[item].hold_us))
        )
    });
}

/// Whether the state of an order says the same as its rows; false where the ledger has no releases to hold it against.
fn state_agrees(
    books: &Books<'_>,
    order: &DurableOrder<'_>,
    reserve: &LedgerEntry,
    has_releases: bool,
    tally: &mut Tally<'_>,
) -> bool {
    let (out, state) = (order.out, order.state);
    match state {
        OrderState::Cancelled | OrderState::Expired if out > 0 => {
            if !has_releases {
                return false;
            }
            show(books, order, reserve, "orders that ended and gave nothing back", tally, || {
                format!("order {} is {}, and its {} never came back", order.id, state.name(), count(out, "unit"))
            });
        }
        OrderState::Held if out <= 0 => show(books, order, reserve, "holds whose stock was given back", tally, || {
            format!("order {} is held, and its stock was given back", order.id)
        }),
        _ => {}
    }
    true
}
