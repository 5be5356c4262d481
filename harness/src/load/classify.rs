//! What a reply means: ok, definitely refused, or indeterminate, and what it says of an order. The one place that
//! decides it.

use serde_json::Value;

use super::client::{Broken, Reply};
use crate::history::{OrderState, Outcome, Role};
use crate::scenario::TicketWords;
use crate::scenario::journey::{CompiledStep, text_of};
use crate::scenario::outcome::{Means, Met};

/// How an attempt ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// Ok, fail or info.
    pub outcome: Outcome,
    /// The reason; empty when ok.
    pub reason: String,
}

/// What came of an attempt: how it ended, and what its reply said of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// How it ended.
    pub classified: Classified,
    /// The order's id; empty if none was named.
    pub order: String,
    /// The order's state.
    pub state: OrderState,
    /// The amount that was stated; -1 if none was.
    pub amount_cents: i64,
    /// The ticket of an order that was accepted and not decided.
    pub ticket: String,
    /// The outcome rule that decided it, if one did.
    pub rule: Option<Met>,
}

impl Said {
    /// Nothing but how it ended.
    pub fn only(classified: Classified) -> Said {
        let (order, ticket) = (String::new(), String::new());
        Said { classified, order, state: OrderState::Unknown, amount_cents: -1, ticket, rule: None }
    }

    /// Whether a rule of the scenario takes it for a payment or a cancel that went through: that needs no body.
    fn pays_by_rule(&self, step: &CompiledStep) -> bool {
        self.rule.is_some() && matches!(step.role, Role::Pay | Role::Cancel)
    }
}

/// Reads a reply by the rules and places that its step declares, and keeps what later steps need of it.
pub fn read(step: &CompiledStep, answer: &Reply<'_>, captured: &mut [String]) -> Said {
    let (mut said, mut json) = (Said::only(reply_or_declared(step, answer)), None);
    if let Some(rules) = &step.rules {
        let body = json.insert(serde_json::from_slice::<Value>(answer.body).unwrap_or_default());
        if let Some((met, reason)) = rules.first(answer, body) {
            said.classified = Classified { outcome: met.means.outcome(), reason };
            said.rule = Some(met);
        }
    }
    if said.classified.outcome != Outcome::Ok && step.role != Role::Ticket {
        return said;
    }
    let json = json.unwrap_or_else(|| {
        if step.wants_json { serde_json::from_slice(answer.body).unwrap_or_default() } else { Value::Null }
    });
    if said.classified.outcome == Outcome::Ok
        && let Some(reason) = step.check.failed(answer, &json)
    {
        // Of a page it is known that it is not what it should be. What takes stock or money may have taken effect.
        let outcome = if step.role == Role::Read { Outcome::Fail } else { Outcome::Info };
        return Said::only(Classified { outcome, reason: reason.into() });
    }
    if step.stream.is_some() && step.role == Role::Read && !answer.head.is_empty() {
        // It was answered at once, and with something else than events.
        said.classified = Classified { outcome: Outcome::Fail, reason: "no-event-stream".into() };
        return said;
    }
    step.keep(answer, &json, captured);
    if step.role == Role::Read {
        return said;
    }
    let text = |pointer: &str| json.pointer(pointer).map(text_of).unwrap_or_default();
    let (order, state) = (step.order.read(answer, &json), text(&step.state));
    let told = !json.is_null() || !step.order.is_json() && !order.is_empty();
    if !told && said.classified.outcome == Outcome::Ok && answer.status != 202 && !said.pays_by_rule(step) {
        // A success without a readable body acknowledges nothing that could be held against the ledger.
        said.classified = Classified { outcome: Outcome::Info, reason: "unreadable-reply".into() };
        return said;
    }
    said.amount_cents = step.amount.read(&json);
    match (step.role, said.rule) {
        // What a rule of the ticket's own step says of it is said of what became of the order.
        (Role::Ticket, Some(met)) if met.own || met.means == Means::Pending => {
            said.state = match met.means {
                Means::Ok => step.state_of(&state),
                Means::Pending => OrderState::Pending,
                Means::Fail => OrderState::Refused,
                Means::Info => OrderState::Unknown,
            };
        }
        (Role::Ticket, _) => {
            let reason = text(&step.reason);
            let status = if said.rule.is_some() { 200 } else { answer.status };
            let told = (status, state.as_str(), reason.as_str());
            (said.classified, said.state) = ticket(&step.words, said.classified, told, !order.is_empty());
            if said.classified.outcome == Outcome::Ok && said.state != OrderState::Pending && !step.states.is_empty() {
                said.state = step.state_of(&state);
            }
        }
        (Role::Order | Role::Lookup, Some(met)) if met.means == Means::Pending => said.state = OrderState::Pending,
        (Role::Order | Role::Lookup, _) => said.state = order_state(answer.status, step.state_of(&state)),
        _ => said.state = step.state_of(&state),
    }
    let ended_in_none = matches!(said.state, OrderState::Pending | OrderState::Refused);
    if said.classified.outcome == Outcome::Ok && !ended_in_none {
        said.order = order;
    }
    if said.state == OrderState::Pending
        && let Some(slot) = step.ticket
    {
        said.ticket.clone_from(&captured[slot]);
    }
    said
}

/// By the status, also by one that the step declares a success.
fn reply_or_declared(step: &CompiledStep, answer: &Reply<'_>) -> Classified {
    if step.check.declares(answer.status) {
        return Classified { outcome: Outcome::Ok, reason: String::new() };
    }
    reply(answer.status, answer.body)
}

/// Classifies a whole reply by the contract: 2xx and 304 are ok; 5xx may have taken effect; everything else is a
/// definite refusal, named by the `type` of its problem document (RFC 9457) since sold out is a 409 like others.
pub fn reply(status: u16, body: &[u8]) -> Classified {
    let outcome = match status {
        200..=299 | 304 => return Classified { outcome: Outcome::Ok, reason: String::new() },
        500.. => Outcome::Info,
        _ => Outcome::Fail,
    };
    let reason = problem_type(body).unwrap_or_else(|| format!("http-{status}"));
    Classified { outcome, reason }
}

/// Classifies an attempt without a reply: only one that provably sent nothing is a failure.
pub fn broken(broken: Broken) -> Classified {
    let outcome = if broken.took_no_effect() { Outcome::Fail } else { Outcome::Info };
    Classified { outcome, reason: broken.reason().to_owned() }
}

/// The state that the reply to an order tells: as it says, else undecided if it was only accepted (202).
pub fn order_state(status: u16, said: OrderState) -> OrderState {
    match said {
        OrderState::Unknown if status == 202 => OrderState::Pending,
        state => state,
    }
}

/// Classifies what a reply says of a ticket, by the words that the scenario declares. `said` is the state in the reply,
/// `why` the reason in it, and `names_order` whether it names an order. A word that nobody declared is no answer.
pub fn ticket(
    words: &TicketWords,
    reply: Classified,
    (status, said, why): (u16, &str, &str),
    names_order: bool,
) -> (Classified, OrderState) {
    let ok = Classified { outcome: Outcome::Ok, reason: String::new() };
    match reply.outcome {
        Outcome::Ok => {}
        // A refusal may come as a problem document, too, as it does for an order that is decided at once.
        Outcome::Fail if words.failed.contains(&reply.reason) => return (reply, OrderState::Refused),
        _ => return (reply, OrderState::Unknown),
    }
    let said = TicketWords::plain(said);
    if words.done.contains(&said) {
        // Of its state more may be known than that there is an order.
        return (ok, OrderState::parse(&said));
    }
    if words.failed.contains(&said) {
        let reason = if why.is_empty() { said } else { TicketWords::plain(why) };
        return (Classified { outcome: Outcome::Fail, reason }, OrderState::Refused);
    }
    if words.pending.contains(&said) || said.is_empty() && status == 202 {
        return (ok, OrderState::Pending);
    }
    if said.is_empty() && names_order {
        return (ok, OrderState::Unknown);
    }
    (Classified { outcome: Outcome::Info, reason: "unknown-state".into() }, OrderState::Unknown)
}

/// Whether trying again under the same key can help. What a rule of the scenario says goes before the status.
pub fn worth_retrying(said: &Said, status: u16) -> bool {
    match said.classified.outcome {
        Outcome::Info => true,
        Outcome::Fail => {
            let not_looked_at = [
                "in-flight",
                "too-many-requests",
                "not-sent",
                "generator-exhausted",
                "tls-handshake",
                "refused-stream",
            ];
            status == 429 && said.rule.is_none() || not_looked_at.contains(&said.classified.reason.as_str())
        }
        Outcome::Ok | Outcome::Dropped => false,
    }
}

fn problem_type(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let kind = problem.get("type")?.as_str()?;
    let slug = kind.rsplit(['/', '#', ':']).next().unwrap_or(kind);
    (!slug.is_empty() && slug != "blank").then(|| slug.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_is_named_by_its_problem_type() {
        let sold_out = reply(409, br#"{"type":"https://shop.example/problems/sold-out","status":409}"#);
        assert_eq!(sold_out, Classified { outcome: Outcome::Fail, reason: "sold-out".into() });
        assert_eq!(reply(404, b"nope").reason, "http-404");
        assert_eq!(reply(400, br#"{"type":"about:blank"}"#).reason, "http-400");
    }

    #[test]
    fn what_may_have_happened_is_worth_another_try() {
        for (status, body, again) in [
            (503, &br#"{"type":"timeout"}"#[..], true),
            (409, br#"{"type":"in-flight"}"#, true),
            (429, b"", true),
            (409, br#"{"type":"sold-out"}"#, false),
            (201, b"{}", false),
        ] {
            assert_eq!(worth_retrying(&Said::only(reply(status, body)), status), again, "{status}");
        }
        let retried = |without| worth_retrying(&Said::only(broken(without)), 0);
        assert!(retried(Broken::Timeout) && retried(Broken::NotSent));
        assert_eq!(broken(Broken::NotSent).outcome, Outcome::Fail);
        assert_eq!(broken(Broken::Reset).outcome, Outcome::Info);
    }

    #[test]
    fn an_accepted_order_is_not_decided() {
        assert_eq!(order_state(202, OrderState::parse("")), OrderState::Pending);
        assert_eq!(order_state(200, OrderState::parse("queued")), OrderState::Pending);
        assert_eq!(order_state(202, OrderState::parse("held")), OrderState::Held);
        assert_eq!(order_state(201, OrderState::parse("")), OrderState::Unknown);
    }

    #[test]
    fn a_ticket_says_what_its_words_mean() {
        let words = TicketWords::default();
        let says = |status: u16, said: &str, why: &str, names_order: bool| {
            let (classified, state) = ticket(&words, reply(status, b""), (status, said, why), names_order);
            (classified.outcome, classified.reason, state)
        };
        let ok = |state| (Outcome::Ok, String::new(), state);
        assert_eq!(says(200, "queued", "", false), ok(OrderState::Pending));
        assert_eq!(says(202, "", "", false), ok(OrderState::Pending));
        assert_eq!(says(200, "ORDERED", "", true), ok(OrderState::Unknown));
        assert_eq!(says(200, "held", "", true), ok(OrderState::Held));
        assert_eq!(says(200, "", "", true), ok(OrderState::Unknown));
        assert_eq!(says(200, "SOLD_OUT", "", false), (Outcome::Fail, "sold-out".into(), OrderState::Refused));
        assert_eq!(says(200, "failed", "sold-out", false), (Outcome::Fail, "sold-out".into(), OrderState::Refused));
        assert_eq!(says(200, "wobbling", "", false), (Outcome::Info, "unknown-state".into(), OrderState::Unknown));
        assert_eq!(says(404, "", "", false), (Outcome::Fail, "http-404".into(), OrderState::Unknown));
        assert_eq!(says(503, "done", "", true), (Outcome::Info, "http-503".into(), OrderState::Unknown));
        let problem = reply(409, br#"{"type":"/problems/sold-out"}"#);
        let (_, state) = ticket(&words, problem, (409, "", ""), false);
        assert_eq!(state, OrderState::Refused);
    }

    #[test]
    fn a_rule_of_the_scenario_goes_before_the_status() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sale.toml");
        std::fs::write(&file, include_str!("../../../scenarios/adapted-shop/sale.toml")).unwrap();
        let scenario = crate::scenario::load(&file, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario;
        let journey = crate::scenario::journey::Journey::all(&scenario).remove(0);
        let mut captured = vec![String::new(); journey.slots.len()];
        let mut says = |name: &str, status: u16, body: &'static str| {
            let step = journey.steps.iter().find(|step| step.name == name).unwrap();
            let reply = Reply { status, retry_after_s: None, location: None, head: b"", body: body.as_bytes() };
            let said = read(step, &reply, &mut captured);
            let again = worth_retrying(&said, status);
            (
                said.classified.outcome,
                said.classified.reason,
                said.state,
                said.order + &said.ticket,
                said.amount_cents,
                again,
            )
        };
        let none = String::new;
        let queued = says("order", 200, r#"{"code":0,"data":{"queue":"q-7"}}"#);
        assert_eq!(queued, (Outcome::Ok, none(), OrderState::Pending, "q-7".into(), -1, false));
        // A refusal in a 200, and one in a 429: both are final, since a rule says so.
        for status in [200, 429, 500] {
            let sold_out = says("order", status, r#"{"code":1001,"msg":"SOLD_OUT","data":null}"#);
            assert_eq!(sold_out, (Outcome::Fail, "sold-out".into(), OrderState::Unknown, none(), -1, false));
        }
        assert!(says("order", 429, "slow down").5 && says("order", 502, "<html>").5, "no rule speaks of these");
        let waits = says("ticket", 200, r#"{"code":0,"data":{"status":"WAITING"}}"#);
        assert_eq!((waits.0, waits.2), (Outcome::Ok, OrderState::Pending));
        let done = says("ticket", 200, r#"{"code":0,"data":{"status":"DONE","orderNo":"A7","total":"99.00"}}"#);
        assert_eq!(done, (Outcome::Ok, none(), OrderState::Unknown, "A7".into(), 9_900, false));
        let refused = says("ticket", 200, r#"{"code":1002,"msg":"ONE_EACH"}"#);
        assert_eq!((refused.0, refused.1.as_str(), refused.2), (Outcome::Fail, "limit-reached", OrderState::Refused));
        let paid = says("pay", 200, r#"{"code":0,"data":{"orderNo":"A7","orderStatus":"PAID","total":99.0}}"#);
        assert_eq!(paid, (Outcome::Ok, none(), OrderState::Paid, "A7".into(), 9_900, false));
    }

    proptest! {
        #[test]
        fn never_takes_a_server_error_for_a_refusal(status in 500u16..1000, body: Vec<u8>) {
            prop_assert_eq!(reply(status, &body).outcome, Outcome::Info);
        }

        #[test]
        fn never_takes_a_refusal_for_an_acknowledgement(status in 400u16..500, body: Vec<u8>) {
            prop_assert_eq!(reply(status, &body).outcome, Outcome::Fail);
        }
    }
}
