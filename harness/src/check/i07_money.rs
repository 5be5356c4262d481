//! I7: money. Nobody pays for what was given back, nobody pays twice or the wrong price, and whoever was told "paid" is.

use super::claims::says_paid;
use super::index::{Ack, Books, DurableOrder};
use super::tally::{Tally, count, show, show_all};
use super::{Case, Check, Finding, i07_captures};
use crate::history::{EntryKind, LedgerEntry, Op, OrderState, Outcome, Role, Sym};

pub(super) struct Money;

impl Check for Money {
    fn id(&self) -> &'static str {
        "I7"
    }

    fn name(&self) -> &'static str {
        "money"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let (mut pays, mut captured) = (0, None);
        if let Some(books) = &case.index.books {
            pays = books.brief.iter().filter(|row| row.kind == EntryKind::Pay && row.item.is_some()).count() as i64;
            prices(case, books, &mut tally);
            let mut unpaid = 0;
            for order in books.orders.iter().filter(|order| order.on_sale) {
                let captured = order.count(EntryKind::Pay) > 0;
                if captured || order.count(EntryKind::Refund) > 0 {
                    judge_rows(books, order, &mut tally);
                }
                unpaid += i64::from(!state_agrees(books, order, captured, pays > 0, &mut tally));
                if captured {
                    asked_to_pay(case, books, order, &mut tally);
                }
            }
            captured = i07_captures::judge(case, books, &mut tally);
            if unpaid > 0 {
                let paid = count(unpaid, "order");
                tally.gap(format!("{paid} are paid, and the ledger has not one pay row: have the audit give them"));
            }
        }
        let stated = stated_amounts(case, &mut tally);
        let told_paid = case.index.acks.iter().flat_map(|ack| case.index.actions_of(ack)).any(|n| {
            let op = &case.history.ops[n as usize];
            says_paid(op) && op.state == OrderState::Paid
        });
        let mut open = 0;
        for ack in &case.index.acks {
            judge_replies(case, ack, &mut tally);
            open += i64::from(left_held(case, ack, told_paid, &mut tally));
        }
        if open > 0 {
            tally.gap(format!(
                "{} answered with success and an order that is still held, and came to nothing, and not one was answered \
                 with an order that is paid: if that is how a payment is only begun, have a step finish it",
                count(open, "payment")
            ));
        }
        let priced = |kind| {
            let rows = case.index.books.iter().flat_map(|books| books.brief.iter().zip(&books.rows));
            rows.filter(|(brief, row)| brief.kind == kind && brief.item.is_some() && row.amount_cents.is_some()).count()
                as i64
        };
        let (paid, reserved) = (priced(EntryKind::Pay), priced(EntryKind::Reserve));
        if pays > 0 && paid + reserved + stated == 0 {
            tally.gap("neither the ledger nor any reply carries an amount, so no price could be judged");
        }
        let seen = if paid == pays {
            format!("{}, each for one order at its price", count(pays, "payment"))
        } else {
            format!(
                "{}, each for one order; {paid} of them carry an amount, and {} and {} do, each of them the price",
                count(pays, "payment"),
                count(reserved, "reservation"),
                count(stated, "reply"),
            )
        };
        let seen = match captured {
            Some(captured) => format!("{seen}.\n{captured}"),
            None => seen,
        };
        tally.finish(self, seen)
    }
}

/// Follows the money of one order through its rows.
fn judge_rows(books: &Books<'_>, order: &DurableOrder<'_>, tally: &mut Tally<'_>) {
    let (mut captures, mut refunds, mut paid_cents) = (0, 0, 0i64);
    let mut captured = None;
    for row in books.rows_of(order) {
        match row.kind {
            EntryKind::Pay => {
                captures += 1;
                captured = Some(row);
                paid_cents = row.amount_cents.unwrap_or(0);
                if captures - refunds > 1 {
                    show(books, order, row, "orders paid twice", tally, || {
                        format!("order {} was paid twice", order.id)
                    });
                }
            }
            EntryKind::Refund => {
                refunds += 1;
                if refunds > captures {
                    show(books, order, row, "refunds of what was not paid", tally, || {
                        format!("order {} was refunded more often than it was paid", order.id)
                    });
                }
                refund(order, row, paid_cents, books, tally);
            }
            EntryKind::Reserve | EntryKind::Release | EntryKind::Place => {}
        }
    }
    if let Some(row) = captured {
        if order.reserve.is_none() {
            show(books, order, row, "payments for orders that are not in the ledger", tally, || {
                format!("a payment was taken for order {}, which the ledger does not know", order.id)
            });
        } else if captures > refunds && order.out <= 0 {
            show(books, order, row, "orders paid and given back without a refund", tally, || {
                format!("order {} was paid, its stock was given back, and the money was not", order.id)
            });
        }
    }
}

/// A refund of more than was paid is wrong; whether less is right is the seller's policy, which nobody stated.
fn refund(order: &DurableOrder<'_>, row: &LedgerEntry, paid_cents: i64, books: &Books<'_>, tally: &mut Tally<'_>) {
    let Some(back) = row.amount_cents.map(i64::abs).filter(|_| paid_cents != 0) else { return };
    if back > paid_cents {
        show(books, order, row, "refunds of more than was paid", tally, || {
            format!("order {} was paid with {paid_cents} cents and refunded with {back}", order.id)
        });
    } else if back < paid_cents {
        tally.gap(format!(
            "order {} was paid with {paid_cents} cents and refunded with {back}: see whether that is meant",
            order.id
        ));
    }
}

/// Holds the amounts of reservations and payments against the price.
fn prices(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) {
    for (brief, row) in books.brief.iter().zip(&books.rows) {
        let (Some(item), Some(amount)) = (brief.item, row.amount_cents) else { continue };
        if !matches!(brief.kind, EntryKind::Reserve | EntryKind::Pay) {
            continue;
        }
        let order = &books.orders[brief.order as usize];
        let quantity = order.reserve.map_or(row.quantity, |reserve| reserve.quantity);
        let due = case.rules.items[usize::from(item)].price_cents.saturating_mul(quantity);
        if amount != due || amount < 0 {
            show(books, order, row, "amounts that are not the price", tally, || {
                format!(
                    "order {} is for {} at {due} cents, and ledger row {} says {amount}",
                    order.id,
                    count(quantity, "unit"),
                    row.seq
                )
            });
        }
    }
}

/// Whether the state of an order says the same as its rows; false where the ledger has no payments to hold it against.
fn state_agrees(
    books: &Books<'_>,
    order: &DurableOrder<'_>,
    captured: bool,
    has_pays: bool,
    tally: &mut Tally<'_>,
) -> bool {
    let Some(reserve) = order.reserve else { return true };
    let refunded = || order.count(EntryKind::Refund) > 0;
    match order.state {
        state @ (OrderState::Paid | OrderState::Refunded) if !captured => {
            if !has_pays {
                return false;
            }
            show(books, order, reserve, "orders called paid without a payment", tally, || {
                format!("order {} is {}, and the ledger has no payment for it", order.id, state.name())
            });
        }
        state @ (OrderState::Placed | OrderState::Held | OrderState::Cancelled | OrderState::Expired)
            if captured && !refunded() =>
        {
            show(books, order, reserve, "orders paid and not kept", tally, || {
                format!("order {} was paid, is {}, and was not refunded", order.id, state.name())
            });
        }
        _ => {}
    }
    true
}

/// Money may only be taken from a buyer who had tried to pay by then and was not definitely refused.
fn asked_to_pay(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, tally: &mut Tally<'_>) {
    let Some(ack) = case.index.ack_of_order(order) else { return };
    let buyer = case.history.ops[ack.op as usize].user;
    if !case.index.whole() || case.index.loose.contains_key(&buyer) {
        return;
    }
    let mut replies =
        case.index.ops_of(&case.index.intents[ack.intent as usize]).iter().map(|n| &case.history.ops[*n as usize]);
    // An order that a service takes the money for at once, or of which it does not say, is paid without being asked.
    if !replies.find(|op| op.acknowledges()).is_some_and(|op| matches!(op.state, OrderState::Held | OrderState::Placed))
    {
        return;
    }
    let Some(row) = books.rows_of(order).find(|row| row.kind == EntryKind::Pay) else { return };
    let stamped = case.since_epoch(row.at_unix_us);
    let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(stamped, stamped));
    let latest = stamped.saturating_add(slack);
    let pays = || case.index.actions_of(ack).map(|n| &case.history.ops[n as usize]).filter(|op| op.role == Role::Pay);
    let mut in_time = pays().filter(|op| op.invoked_us <= latest).peekable();
    let tried = in_time.peek().is_some();
    if !in_time.all(|op| op.outcome == Outcome::Fail) {
        return;
    }
    if tried && order.count(EntryKind::Refund) == 0 {
        show(books, order, row, "payments taken that were told to have failed", tally, || {
            format!(
                "{} was told that the payment of order {} failed, and the money was taken",
                case.user(buyer),
                order.id
            )
        });
    } else if !tried && case.index.scan.tried_to_pay {
        show(books, order, row, "payments that nobody made", tally, || {
            format!("order {} was paid, and {} had not tried to pay it", order.id, case.user(buyer))
        });
    }
}

/// Amounts that replies state; returns how many could be held against a price.
fn stated_amounts(case: &Case<'_>, tally: &mut Tally<'_>) -> i64 {
    let mut judged = 0;
    for n in &case.index.scan.amounts {
        let op = &case.history.ops[*n as usize];
        if !matches!(op.role, Role::Order | Role::Pay | Role::Lookup | Role::Ticket) {
            continue;
        }
        let Some((item, quantity)) = goods(case, op) else { continue };
        let due = case.rules.items[item].price_cents.saturating_mul(quantity);
        judged += 1;
        if quantity > 0 && op.amount_cents != due {
            tally.violation("replies with an amount that is not the price", |case, witness| {
                witness.bad_op(case, *n);
                format!(
                    "{} was told that {} of item {} cost {} cents, and the price is {due}",
                    case.user(op.user),
                    count(quantity, "unit"),
                    case.rules.items[item].item,
                    op.amount_cents
                )
            });
        }
    }
    judged
}

/// Follows a payment that was answered with success and an order that is still held: it has to come to a paid or refunded
/// order. Where other payments were answered with an order that is paid, that one was dropped; returns whether it came to
/// nothing where none was, since then it may only have been begun. One that was accepted for later (202) may be declined.
fn left_held(case: &Case<'_>, ack: &Ack, told_paid: bool, tally: &mut Tally<'_>) -> bool {
    let Some(books) = case.index.books.as_ref().filter(|_| case.index.whole()) else { return false };
    let Some(order) = books.order_named(ack.order).filter(|_| ack.order != Sym(0)) else { return false };
    let over = matches!(order.state, OrderState::Expired | OrderState::Cancelled);
    if !over
        || order.count(EntryKind::Pay) > 0
        || case.index.loose.contains_key(&case.history.ops[ack.op as usize].user)
    {
        return false;
    }
    let ops = || case.index.actions_of(ack).map(|n| (n, &case.history.ops[n as usize]));
    // A cancel, or a payment that failed, may have ended the order.
    if ops().any(|(_, op)| op.role == Role::Cancel || op.outcome != Outcome::Ok) {
        return false;
    }
    let held = ops().find(|(_, op)| op.role == Role::Pay && op.state == OrderState::Held && op.status != 202);
    let Some((n, op)) = held else { return false };
    if !told_paid {
        return true;
    }
    tally.violation("acknowledged payments that came to nothing", |case, witness| {
        show_all(case, ack, witness);
        witness.bad_op(case, n);
        books.rows_of(order).for_each(|row| witness.row(case, row));
        format!(
            "the payment of {} by {} was answered with success and an order that is still held, and at the audit it is {} \
             and not paid",
            case.order(ack.order),
            case.user(op.user),
            order.state.name()
        )
    });
    false
}

/// What an op is about: as it says, else as the order that it names was asked for.
fn goods(case: &Case<'_>, op: &Op) -> Option<(usize, i64)> {
    if op.quantity != 0 {
        return Some((case.index.item(op.item)?, i64::from(op.quantity)));
    }
    let ack = case.index.ack_of(op.order).filter(|_| op.order != Sym(0))?;
    let intent = &case.index.intents[ack.intent as usize];
    Some((case.index.item(intent.item)?, i64::from(intent.quantity)))
}

/// A payment that was acknowledged leaves the order paid, or refunded; one after an acknowledged cancel leaves it refunded.
fn judge_replies(case: &Case<'_>, ack: &Ack, tally: &mut Tally<'_>) {
    let ops = || case.index.actions_of(ack).map(|n| (n, &case.history.ops[n as usize]));
    let cancelled = ops()
        .filter(|(_, op)| op.role == Role::Cancel && op.outcome == Outcome::Ok)
        .min_by_key(|(_, op)| op.completed_us);
    let durable = case.index.books.as_ref().and_then(|books| Some((books, books.order_named(ack.order)?)));
    for (n, op) in ops().filter(|(_, op)| says_paid(op)) {
        let now = durable.map(|(_, order)| order.state).unwrap_or_default();
        if !matches!(now, OrderState::Paid | OrderState::Refunded | OrderState::Unknown) {
            tally.violation("acknowledged payments of orders that are not paid", |case, witness| {
                show_all(case, ack, witness);
                witness.bad_op(case, n);
                if let Some((books, order)) = durable {
                    books.rows_of(order).for_each(|row| witness.bad_row(case, row));
                }
                format!("{} paid {}, and at the audit it is {}", case.user(op.user), case.order(ack.order), now.name())
            });
        }
        let after_cancel = cancelled.filter(|(_, cancel)| cancel.completed_us < op.invoked_us);
        if let Some((cancel, _)) = after_cancel.filter(|_| op.state == OrderState::Paid && now != OrderState::Refunded)
        {
            tally.violation("payments taken after an acknowledged cancel", |case, witness| {
                show_all(case, ack, witness);
                witness.op(case, cancel);
                witness.bad_op(case, n);
                format!(
                    "{} cancelled {}, and later a payment of it was taken",
                    case.user(op.user),
                    case.order(ack.order)
                )
            });
        }
    }
}
