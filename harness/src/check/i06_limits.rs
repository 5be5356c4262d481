//! I6: no buyer holds or owns more than the limit, at any moment, and a single-use token buys once, for its owner.

use std::collections::{HashMap, HashSet};

use super::books::not_in_order;
use super::claims::Claim;
use super::index::{Books, Class, Intent, QuickMap};
use super::standing::says_who;
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, LedgerEntry, Micros, Outcome, Role, Sym};

pub(super) struct Limits;

impl Check for Limits {
    fn id(&self) -> &'static str {
        "I6"
    }

    fn name(&self) -> &'static str {
        "limits per user"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let mut most = 0;
        if let Some(books) = &case.index.books {
            most = by_ledger(case, books, &mut tally);
        }
        most = most.max(by_replies(case, &mut tally));
        refused_within(case, &mut tally);
        let spent = tokens(case, &mut tally);
        let limits: Vec<String> =
            case.rules.items.iter().map(|item| format!("{} of item {}", item.per_user_limit, item.item)).collect();
        let mut seen =
            format!("no user had more than {} at once; allowed are {}", count(most, "unit"), limits.join(", "));
        if spent > 0 {
            seen.push_str(&format!("; {} spent, each once and by its owner", count(spent, "single-use token")));
        }
        tally.finish(self, seen)
    }
}

fn by_ledger(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) -> i64 {
    let mut held: QuickMap<Holder<'_>, i64> = QuickMap::default();
    let mut out_of_order = vec![0i64; books.orders.len()];
    let mut beyond: Vec<(usize, Holder<'_>, i64)> = Vec::new();
    let mut most = 0;
    for (n, brief) in books.brief.iter().enumerate() {
        let Some(holder) = holder(case, books, n) else { continue };
        let out = &mut out_of_order[brief.order as usize];
        let change = match brief.kind {
            EntryKind::Reserve => brief.quantity,
            EntryKind::Release => -brief.quantity.min(*out).max(0),
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => continue,
        };
        *out += change;
        let has = held.entry(holder).or_default();
        *has += change;
        most = most.max(*has);
        if change > 0 && *has > case.rules.items[usize::from(holder.2)].per_user_limit {
            beyond.push((n, holder, *has));
        }
    }
    if beyond.is_empty() {
        return most;
    }
    let suspects: HashSet<Holder<'_>> = beyond.iter().map(|(_, holder, _)| *holder).collect();
    let by_time = books.by_time(|n| holder(case, books, n).filter(|holder| suspects.contains(holder)));
    let certain: HashSet<Holder<'_>> = by_time
        .into_iter()
        .filter(|(holder, times)| {
            times.exceeds(case.rules.items[usize::from(holder.2)].per_user_limit, case.rules.epsilon_us)
        })
        .map(|(holder, _)| holder)
        .collect();
    for (n, holder, has) in beyond {
        let (row, order) = (books.rows[n], &books.orders[books.brief[n].order as usize]);
        let limit = case.rules.items[usize::from(holder.2)].per_user_limit;
        let owner = order.reserve.map_or(row.user.as_str(), |reserve| reserve.user.as_str());
        if !certain.contains(&holder) {
            tally.gap(not_in_order(&format!("{owner} would have had {has} of item {}", row.item), row));
            continue;
        }
        tally.violation("reservations beyond a user's limit", |case, witness| {
            theirs(books, owner, row).iter().for_each(|before| witness.row(case, before));
            witness.bad_row(case, row);
            case.index.ack_of_order(order).into_iter().for_each(|ack| witness.op(case, ack.op));
            let has = count(has, "unit");
            format!("{owner} had {has} of item {} at ledger row {}, and {limit} are allowed", row.item, row.seq)
        });
    }
    most
}

/// Whose units of which item a row is about. Buyers of the run go by number; whoever else is in the ledger goes by name.
type Holder<'a> = (Option<u64>, &'a str, u16);

/// A release counts for whoever reserved, and for what was reserved, whatever stands in its row.
fn holder<'a>(case: &Case<'_>, books: &Books<'a>, n: usize) -> Option<Holder<'a>> {
    let order = &books.orders[books.brief[n].order as usize];
    let item = match order.reserve {
        Some(reserve) => case.index.item(reserve.item).map(|item| item as u16),
        None => books.brief[n].item,
    };
    let owner = order.reserve.unwrap_or(books.rows[n]).user.as_str();
    Some((order.user, if order.user.is_some() { "" } else { owner }, item?))
}

/// What a user had reserved before a row, and not given back.
fn theirs<'a>(books: &Books<'a>, owner: &str, row: &LedgerEntry) -> Vec<&'a LedgerEntry> {
    let before = books.rows.iter().filter(|other| other.user == owner && other.item == row.item && other.seq < row.seq);
    let mut live: Vec<&LedgerEntry> = Vec::new();
    for other in before {
        match other.kind {
            EntryKind::Reserve => live.push(other),
            EntryKind::Release => live.retain(|reserved| reserved.order != other.order),
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
        }
    }
    live
}

fn by_replies(case: &Case<'_>, tally: &mut Tally<'_>) -> i64 {
    let mut by_user: Vec<Claim> = case.claims.clone();
    by_user.sort_unstable_by_key(|claim| (claim.user, claim.item));
    let mut most = 0;
    for group in by_user.chunk_by(|a, b| (a.user, a.item) == (b.user, b.item)) {
        let limit = case.rules.items[group[0].item].per_user_limit;
        let total: i64 = group.iter().map(|claim| claim.quantity.max(0)).sum();
        if total <= limit {
            most = most.max(total);
            continue;
        }
        let mut steps: Vec<(i64, i64, usize)> = Vec::new();
        for (n, claim) in group.iter().enumerate() {
            steps.push((claim.from, claim.quantity.max(0), n));
            steps.push((claim.until, -claim.quantity.max(0), n));
        }
        steps.sort_unstable();
        let mut has = 0;
        for (at, change, n) in steps {
            has += change;
            most = most.max(has);
            // As for I1: a cancel that was not recorded would end a claim.
            if change > 0 && has > limit && case.index.whole() {
                tally.violation("users beyond their limit by their own replies", |case, witness| {
                    let live = group.iter().filter(|claim| claim.from <= at && claim.until > at);
                    live.for_each(|claim| witness.op(case, claim.op));
                    witness.bad_op(case, group[n].op);
                    format!(
                        "by the replies, {} had {} of item {} at {}, and {limit} are allowed",
                        case.user(group[n].user),
                        count(has, "unit"),
                        case.rules.items[group[n].item].item,
                        seconds(at)
                    )
                });
                break;
            }
        }
    }
    most
}

/// Nobody is told that they have reached their limit who cannot have: with all that they ever asked for and were not
/// definitely refused, and what they ask for now. Whether what was given back counts as well is the seller's policy.
fn refused_within(case: &Case<'_>, tally: &mut Tally<'_>) {
    let Some(reason) = case.history.names.find("limit-reached").filter(|_| case.index.whole()) else { return };
    let mut refused: HashMap<(u64, usize), Vec<u32>> = HashMap::new();
    for n in &case.index.scan.refusals {
        let op = &case.history.ops[*n as usize];
        if let Some(item) = case.index.item(op.item).filter(|_| op.reason == reason && !says_who(op)) {
            refused.entry((op.user, item)).or_default().push(*n);
        }
    }
    if refused.is_empty() {
        return;
    }
    let mut asked: HashMap<(u64, usize), Vec<(Micros, i64)>> = HashMap::new();
    let mut add = |user: u64, item: i64, at: Micros, quantity: i64| {
        if let Some(key) = case.index.item(item).map(|item| (user, item)).filter(|key| refused.contains_key(key)) {
            asked.entry(key).or_default().push((at, quantity.max(0)));
        }
    };
    for intent in case.index.intents.iter().filter(|intent| intent.class != Class::Fail) {
        add(intent.user, intent.item, intent.first_invoked, intent.quantity.into());
    }
    // An order that was made otherwise than its purchase asked for counts beside it.
    for (order, reserve) in case.index.books.iter().flat_map(|books| books.durable()) {
        let own = order.intent.map(|intent| &case.index.intents[intent as usize]);
        let as_asked = own.is_some_and(|own| {
            let first = case.index.books.as_ref().and_then(|books| books.order_of_intent(order.intent?));
            let alike = i64::from(own.quantity) >= reserve.quantity && Some(own.user) == order.user;
            alike && own.class != Class::Fail && first.is_some_and(|first| first.id == order.id)
        });
        if let (Some(user), false) = (order.user, as_asked) {
            add(user, reserve.item, Micros::MIN, reserve.quantity);
        }
    }
    for (key @ (user, item), ops) in refused {
        let rules = &case.rules.items[item];
        for n in ops {
            let op = &case.history.ops[n as usize];
            let before = asked.get(&key).into_iter().flatten().filter(|(at, _)| *at < op.completed_us);
            let most: i64 = before.map(|(_, quantity)| quantity).sum();
            let wants = i64::from(op.quantity).max(1);
            if most + wants > rules.per_user_limit {
                continue;
            }
            tally.if_set_up("buyers told that they reached a limit that they had not", |case, witness| {
                witness.bad_op(case, n);
                format!(
                    "{} was told at {} that {} of item {} is beyond the limit of {}, and had asked for at most {most} before",
                    case.user(user),
                    seconds(op.completed_us),
                    count(wants, "unit"),
                    rules.item,
                    rules.per_user_limit
                )
            });
        }
    }
}

/// Follows single-use tokens from the replies that gave them to the orders that they bought; returns how many bought one.
fn tokens(case: &Case<'_>, tally: &mut Tally<'_>) -> i64 {
    // To whom each token was given first, and by which op.
    let mut given: QuickMap<u32, u32> = QuickMap::default();
    let mut spent: QuickMap<u32, u32> = QuickMap::default();
    let ops = &case.history.ops;
    for n in &case.index.scan.tokens {
        let op = &ops[*n as usize];
        if op.role == Role::Order || op.outcome != Outcome::Ok {
            continue;
        }
        let first = given.entry(op.token.0).or_insert(*n);
        if op.completed_us < ops[*first as usize].completed_us {
            *first = *n;
        }
    }
    let mut bought: Vec<u32> = case.index.scan.tokens.iter().filter_map(|n| token_of_purchase(case, *n)).collect();
    // Of a purchase with several attempts, the one that was acknowledged is the one to show.
    bought.sort_unstable_by_key(|n| {
        let op = &ops[*n as usize];
        (!op.acknowledges(), op.invoked_us, *n)
    });
    for n in bought {
        let op = &ops[n as usize];
        let first = *spent.entry(op.token.0).or_insert(n);
        if ops[first as usize].intent != op.intent {
            tally.violation("single-use tokens that bought twice", |case, witness| {
                given.get(&op.token.0).into_iter().for_each(|n| witness.op(case, *n));
                witness.op(case, first);
                witness.bad_op(case, n);
                format!(
                    "one single-use token bought two orders: purchase {} of {} and purchase {} of {}",
                    ops[first as usize].intent,
                    case.user(ops[first as usize].user),
                    op.intent,
                    case.user(op.user)
                )
            });
        }
        let Some(gave) = given.get(&op.token.0).filter(|gave| ops[**gave as usize].user != op.user) else { continue };
        tally.violation("single-use tokens spent by another than their owner", |case, witness| {
            witness.op(case, *gave);
            witness.bad_op(case, n);
            format!(
                "a single-use token that was given to {} bought an order for {}",
                case.user(ops[*gave as usize].user),
                case.user(op.user)
            )
        });
    }
    spent.len() as i64
}

/// The op itself, if it is the attempt whose token bought the order of its purchase: an attempt that was acknowledged,
/// or any of a purchase that was acknowledged later, if all its attempts spent the one token.
fn token_of_purchase(case: &Case<'_>, n: u32) -> Option<u32> {
    let op = &case.history.ops[n as usize];
    if op.role != Role::Order || op.outcome == Outcome::Fail {
        return None;
    }
    let intent: &Intent = &case.index.intents[case.index.intent_of(op.intent)? as usize];
    if op.acknowledges() {
        return Some(n);
    }
    let mut attempts = case.index.ops_of(intent).iter().map(|n| &case.history.ops[*n as usize]);
    let one = attempts.all(|other| other.role != Role::Order || other.token == op.token && op.token != Sym(0));
    (intent.class == Class::Ok && one).then_some(n)
}
