//! Outcome rules: what a reply means, in a service whose replies follow other rules than the status. Declared in scenarios,
//! compiled once.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use regex::Regex;
use regex::bytes::Regex as BytesRegex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::TicketWords;
use super::journey::text_of;
use super::reading::{Source, is_token, pointer};
use crate::history::Outcome;
use crate::load::client::Reply;

/// What is accepted in a rule, for messages.
pub const ACCEPTED: &str = "[[step.order.outcome]] at = \"/code\", is = 1001, means = \"fail\", reason = \"sold-out\"; conditions are \
    `status` (409, \"4xx\" or a list), `header` ({ name = \"x-code\", is = \"17\" }), `at` with `is` or `matches`, and `body`, and all \
    of a rule must hold";

/// A reason is a name, and no page of text.
const LONGEST_REASON: usize = 60;

/// One rule by which a reply is understood. All its conditions have to hold; the first rule that does decides, those of the step
/// before those of the whole scenario. Where none holds, the status decides as ever.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeRule {
    /// The status: `200`, `"4xx"`, or a list of them.
    #[schemars(with = "Option<OneOrMore>")]
    pub status: Option<Spanned<OneOrMore>>,
    /// A header.
    #[schemars(with = "Option<HeaderRule>")]
    pub header: Option<Spanned<HeaderRule>>,
    /// A JSON pointer to a value in the body, which has to be there, and to be as `is` or `matches` says.
    #[schemars(with = "Option<String>")]
    pub at: Option<Spanned<String>>,
    /// That value, or those that it may be. Compared as text: `0` is also `"0"`.
    #[schemars(with = "Option<OneOrMore>")]
    pub is: Option<Spanned<OneOrMore>>,
    /// An expression that must match somewhere in that value.
    #[schemars(with = "Option<String>")]
    pub matches: Option<Spanned<String>>,
    /// An expression that must match somewhere in the body.
    #[schemars(with = "Option<String>")]
    pub body: Option<Spanned<String>>,
    /// What the reply is then taken for.
    pub means: Means,
    /// Why it failed, or is unclear. The checks know `sold-out`, `limit-reached`, `too-early` and `ended`; `in-flight` and
    /// `too-many-requests` are tried again.
    #[schemars(with = "Option<String>")]
    pub reason: Option<Spanned<String>>,
    /// Where the reply says why: a JSON pointer, or any other place that a value can be captured from.
    #[schemars(with = "Option<String>")]
    pub reason_at: Option<Spanned<String>>,
    /// The harness's words for what stands there: `{ "STOCK_EMPTY" = "sold-out" }`.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
}

/// One value, or several that are as good as each other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, a text, true or false, or a list of them, was expected")]
pub enum OneOrMore {
    /// One.
    One(Scalar),
    /// Several.
    More(Vec<Scalar>),
}

/// A value without parts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, a text, true or false was expected")]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
}

impl OneOrMore {
    fn texts(&self) -> Vec<String> {
        let text = |scalar: &Scalar| match scalar {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Whole(value) => value.to_string(),
            Scalar::Number(value) => value.to_string(),
            Scalar::Text(value) => value.clone(),
        };
        match self {
            OneOrMore::One(scalar) => vec![text(scalar)],
            OneOrMore::More(scalars) => scalars.iter().map(text).collect(),
        }
    }
}

/// A condition on a header.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// Its name.
    pub name: String,
    /// What one of its values is.
    pub is: Option<OneOrMore>,
    /// An expression that must match somewhere in one of them.
    pub matches: Option<String>,
}

/// What a reply is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// It took effect.
    Ok,
    /// It was refused, and took no effect.
    Fail,
    /// It may or may not have taken effect.
    Info,
    /// An order was accepted and is not decided yet.
    Pending,
}

/// The rules of a step, compiled: its own, then those of the scenario.
#[derive(Debug, Clone)]
pub struct Rules {
    list: Vec<Rule>,
    own: usize,
}

#[derive(Debug, Clone)]
struct Rule {
    status: Vec<RangeInclusive<u16>>,
    header: Option<(String, Test)>,
    json: Option<(String, Test)>,
    body: Option<BytesRegex>,
    means: Means,
    reason: Option<String>,
    reason_at: Option<Source>,
    words: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
enum Test {
    There,
    Is(Vec<String>),
    Matches(Regex),
}

/// The rule that a reply met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// What it says.
    pub means: Means,
    /// Its number, from 1, in the list that it stands in.
    pub number: u16,
    /// Whether that is the step's own list, and not the one of the whole scenario.
    pub own: bool,
}

impl Means {
    /// The outcome of an attempt.
    pub fn outcome(self) -> Outcome {
        match self {
            Means::Ok | Means::Pending => Outcome::Ok,
            Means::Fail => Outcome::Fail,
            Means::Info => Outcome::Info,
        }
    }
}

impl Test {
    fn of(is: Option<&OneOrMore>, matches: Option<&str>) -> Result<Test, String> {
        match (is, matches) {
            (Some(_), Some(_)) => Err("has both `is` and `matches`".to_owned()),
            (Some(is), None) => Ok(Test::Is(is.texts())),
            (None, Some(regex)) => {
                Regex::new(regex).map(Test::Matches).map_err(|error| format!("`{regex}` is no regex: {error}"))
            }
            (None, None) => Ok(Test::There),
        }
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Test::There => true,
            Test::Is(texts) => texts.iter().any(|text| text == value),
            Test::Matches(regex) => regex.is_match(value),
        }
    }
}

/// A status or a hundred of them: `409`, `"4xx"`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let hundred = text.strip_suffix("xx").and_then(|first| first.parse::<u16>().ok());
    match (hundred, text.parse::<u16>()) {
        (Some(first @ 1..=5), _) => Ok(first * 100..=first * 100 + 99),
        (None, Ok(status @ 100..=599)) => Ok(status..=status),
        _ => Err(format!("`{text}` is no status")),
    }
}

impl Rule {
    fn compile(rule: &OutcomeRule, whole: Range<usize>) -> Result<Rule, (Range<usize>, String)> {
        let wrong = |at: Range<usize>| move |why: String| (at, why);
        let mut status = Vec::new();
        if let Some(spanned) = &rule.status {
            for text in spanned.get_ref().texts() {
                status.push(statuses(&text).map_err(wrong(spanned.span()))?);
            }
        }
        let header = match &rule.header {
            None => None,
            Some(spanned) => {
                let HeaderRule { name, is, matches } = spanned.get_ref();
                if !is_token(name) {
                    return Err((spanned.span(), format!("`{name}` is no name of a header")));
                }
                let test = Test::of(is.as_ref(), matches.as_deref()).map_err(wrong(spanned.span()))?;
                Some((name.to_ascii_lowercase(), test))
            }
        };
        let is = rule.is.as_ref().map(Spanned::get_ref);
        let matches = rule.matches.as_ref().map(|regex| regex.get_ref().as_str());
        let json = match &rule.at {
            None if rule.is.is_some() || rule.matches.is_some() => {
                return Err((whole, "`is` and `matches` say nothing without `at`".to_owned()));
            }
            None => None,
            Some(at) => {
                pointer(at.get_ref()).map_err(wrong(at.span()))?;
                let here = rule.matches.as_ref().map_or(at.span(), Spanned::span);
                Some((at.get_ref().clone(), Test::of(is, matches).map_err(wrong(here))?))
            }
        };
        let body = match &rule.body {
            None => None,
            Some(regex) => Some(
                BytesRegex::new(regex.get_ref())
                    .map_err(|error| (regex.span(), format!("`{}` is no regex: {error}", regex.get_ref())))?,
            ),
        };
        if status.is_empty() && header.is_none() && json.is_none() && body.is_none() {
            return Err((whole, "no condition is given, so that it would take every reply for the same".to_owned()));
        }
        let reason_at = match &rule.reason_at {
            Some(at) if rule.reason.is_some() => {
                return Err((at.span(), "`reason` and `reason_at` are both given".to_owned()));
            }
            Some(at) => Some(Source::parse(at.get_ref()).map_err(wrong(at.span()))?),
            None if !rule.words.is_empty() => {
                return Err((whole, "`words` translate what stands at `reason_at`, and there is none".to_owned()));
            }
            None => None,
        };
        if let Some(reason) = &rule.reason
            && matches!(rule.means, Means::Ok | Means::Pending)
        {
            return Err((reason.span(), "a success has no `reason`".to_owned()));
        }
        let reason = rule.reason.as_ref().map(|reason| reason.get_ref().clone());
        let words = rule.words.iter().map(|(theirs, ours)| (TicketWords::plain(theirs), ours.clone())).collect();
        Ok(Rule { status, header, json, body, means: rule.means, reason, reason_at, words })
    }

    fn holds(&self, reply: &Reply<'_>, json: &Value) -> bool {
        let status = self.status.is_empty() || self.status.iter().any(|range| range.contains(&reply.status));
        status
            && self.header.as_ref().is_none_or(|(name, test)| reply.header(name).any(|value| test.holds(value)))
            && self.json.as_ref().is_none_or(|(place, test)| {
                json.pointer(place).filter(|value| !value.is_null()).is_some_and(|value| test.holds(&text_of(value)))
            })
            && self.body.as_ref().is_none_or(|regex| regex.is_match(reply.body))
    }

    /// Why, in the harness's words as far as they are declared; what the rule looked at where nothing says why.
    fn reason(&self, reply: &Reply<'_>, json: &Value) -> String {
        if matches!(self.means, Means::Ok | Means::Pending) {
            return String::new();
        }
        if let Some(reason) = &self.reason {
            return reason.clone();
        }
        let said = self.reason_at.as_ref().map(|at| TicketWords::plain(&at.read(reply, json))).unwrap_or_default();
        let mut reason = match self.words.get(&said) {
            Some(ours) => return ours.clone(),
            None if !said.is_empty() => said,
            None => match &self.json {
                Some((place, _)) => {
                    let value = json.pointer(place).map(text_of).unwrap_or_default();
                    format!("{}-{}", place.rsplit('/').next().unwrap_or_default(), TicketWords::plain(&value))
                }
                None => format!("http-{}", reply.status),
            },
        };
        if let Some((cut, _)) = reason.char_indices().nth(LONGEST_REASON) {
            reason.truncate(cut);
        }
        reason
    }
}

impl Rules {
    /// Compiles a step's own rules and those of the scenario; none if there are none.
    ///
    /// # Errors
    /// The place and the mistake, of the first rule that has one.
    pub fn compile(
        own: &[Spanned<OutcomeRule>],
        common: &[Spanned<OutcomeRule>],
    ) -> Result<Option<Box<Rules>>, (Range<usize>, String)> {
        let all = own.iter().chain(common);
        let list: Vec<Rule> = all.map(|rule| Rule::compile(rule.get_ref(), rule.span())).collect::<Result<_, _>>()?;
        Ok((!list.is_empty()).then(|| Box::new(Rules { list, own: own.len() })))
    }

    /// The first rule that a reply meets, and the reason that follows from it. `json` is the body, null where it is no JSON.
    pub fn first(&self, reply: &Reply<'_>, json: &Value) -> Option<(Met, String)> {
        let index = self.list.iter().position(|rule| rule.holds(reply, json))?;
        let own = index < self.own;
        let number = (if own { index } else { index - self.own } + 1) as u16;
        let rule = &self.list[index];
        Some((Met { means: rule.means, number, own }, rule.reason(reply, json)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(toml: &str) -> Result<Option<Box<Rules>>, String> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            own: Vec<Spanned<OutcomeRule>>,
            #[serde(default)]
            common: Vec<Spanned<OutcomeRule>>,
        }
        let file: File = toml::from_str(toml).map_err(|error| error.to_string())?;
        Rules::compile(&file.own, &file.common).map_err(|(_, why)| why)
    }

    fn met(toml: &str, status: u16, body: &'static str) -> Option<(Met, String)> {
        let head = b"HTTP/1.1 200 OK\r\nX-Code: 17\r\n\r\n";
        let reply = Reply { status, retry_after_s: None, location: None, head, body: body.as_bytes() };
        let json = serde_json::from_str(body).unwrap_or_default();
        rules(toml).unwrap().unwrap().first(&reply, &json)
    }

    #[test]
    fn the_first_rule_that_holds_decides_and_the_steps_own_come_first() {
        let toml = "[[own]]\nat='/code'\nis=0\nmeans='ok'\n[[own]]\nat='/code'\nis=[1001, 'SOLD']\nmeans='fail'\nreason='sold-out'\n\
                    [[common]]\nat='/code'\nmeans='fail'\nreason_at='/msg'\nwords={ 'Too Fast' = 'too-many-requests' }\n\
                    [[common]]\nstatus=['4xx', 503]\nbody='retry'\nmeans='info'\n";
        let says = |status, body| {
            met(toml, status, body).map(|(met, reason)| (met.means.outcome(), reason, met.number, met.own))
        };
        assert_eq!(says(200, r#"{"code":0}"#), Some((Outcome::Ok, String::new(), 1, true)));
        assert_eq!(says(200, r#"{"code":"0"}"#), Some((Outcome::Ok, String::new(), 1, true)));
        assert_eq!(says(200, r#"{"code":1001}"#), Some((Outcome::Fail, "sold-out".into(), 2, true)));
        assert_eq!(says(500, r#"{"code":"SOLD"}"#), Some((Outcome::Fail, "sold-out".into(), 2, true)));
        let fast = says(200, r#"{"code":7,"msg":"too fast"}"#);
        assert_eq!(fast, Some((Outcome::Fail, "too-many-requests".into(), 1, false)));
        assert_eq!(says(200, r#"{"code":7,"msg":"No luck"}"#), Some((Outcome::Fail, "no-luck".into(), 1, false)));
        assert_eq!(says(200, r#"{"code":7}"#), Some((Outcome::Fail, "code-7".into(), 1, false)));
        assert_eq!(says(200, r#"{"code":null}"#), None);
        assert_eq!(says(409, "please retry"), Some((Outcome::Info, "http-409".into(), 2, false)));
        assert_eq!((says(503, "retry").is_some(), says(500, "retry"), says(200, "<html>")), (true, None, None));
    }

    #[test]
    fn headers_and_expressions_are_looked_at() {
        let header = "[[own]]\nheader={ name='x-code', is=17 }\nat='/m'\nmatches='^s'\nmeans='pending'\n";
        assert_eq!(met(header, 200, r#"{"m":"so"}"#).map(|(met, _)| met.means), Some(Means::Pending));
        assert_eq!(met(header, 200, r#"{"m":"no"}"#), None);
        assert_eq!(met(&header.replace("17", "18"), 200, r#"{"m":"so"}"#), None);
    }

    #[test]
    fn a_long_text_is_no_reason() {
        let long: &'static str = Box::leak(format!("{{\"code\":1,\"msg\":\"{}\"}}", "ä".repeat(500)).into_boxed_str());
        let (_, reason) = met("[[own]]\nat='/code'\nmeans='fail'\nreason_at='/msg'\n", 200, long).unwrap();
        assert_eq!(reason.chars().count(), LONGEST_REASON);
    }

    #[test]
    fn a_rule_that_says_nothing_is_refused() {
        for (toml, why) in [
            ("[[own]]\nmeans='ok'\n", "no condition"),
            ("[[own]]\nis=1\nmeans='ok'\n", "without `at`"),
            ("[[own]]\nat='code'\nis=1\nmeans='ok'\n", "one starts with `/`"),
            ("[[own]]\nat='/code'\nis=1\nmatches='1'\nmeans='ok'\n", "both `is` and `matches`"),
            ("[[own]]\nstatus='4x'\nmeans='ok'\n", "`4x` is no status"),
            ("[[own]]\nbody='('\nmeans='ok'\n", "no regex"),
            ("[[own]]\nstatus=200\nmeans='ok'\nreason='x'\n", "a success has no `reason`"),
            ("[[own]]\nstatus=409\nmeans='fail'\nwords={ a = 'b' }\n", "there is none"),
            ("[[own]]\nstatus=409\nmeans='fail'\nreason='a'\nreason_at='/b'\n", "both given"),
            ("[[own]]\nheader={ name='a b' }\nmeans='ok'\n", "no name of a header"),
            ("[[own]]\nstatus=409\nmeans='perhaps'\n", "unknown variant"),
        ] {
            let error = rules(toml).unwrap_err();
            assert!(error.contains(why), "{toml}: {error}");
        }
    }
}
