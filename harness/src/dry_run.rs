//! What a run would do, said and not done: `seckill run --dry-run`.

use serde::Serialize;

use crate::history::FaultPlan;
use crate::scenario::{Scenario, Target};

/// The plan of a run.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What is rehearsed, and where it is.
    pub target: String,
    /// The header that tags the traffic, if there is one.
    pub tag: Option<String>,
    /// The items on sale, for people.
    pub items: Vec<String>,
    /// Cohorts: name, planned arrivals, journey.
    pub cohorts: Vec<Cohort>,
    /// Planned arrivals of all cohorts.
    pub arrivals: u64,
    /// Most arrivals planned in any second of the schedule.
    pub peak_per_second: u64,
    /// Length of the load in seconds.
    pub duration_s: f64,
    /// The timeline of faults.
    pub faults: Vec<FaultPlan>,
    /// What is started, run before, and run after, in this order.
    pub commands: Vec<(String, String)>,
    /// How what the shop kept is read.
    pub audit: String,
}

/// One kind of buyers.
#[derive(Debug, Serialize)]
pub struct Cohort {
    /// Its name.
    pub name: String,
    /// Its planned arrivals.
    pub arrivals: u64,
    /// The steps of its journey.
    pub journey: Vec<String>,
}

impl Plan {
    /// The plan of a scenario: a pure function of it.
    pub fn of(scenario: &Scenario) -> Plan {
        let names: Vec<&String> = scenario.cohort.keys().collect();
        let (mut counts, mut seconds, mut peak) = (vec![0; names.len()], (0, 0), 0);
        for arrival in scenario.plan() {
            counts[usize::from(arrival.cohort)] += 1;
            let second = arrival.at_us.div_euclid(1_000_000);
            seconds = if seconds.0 == second { (second, seconds.1 + 1) } else { (second, 1) };
            peak = peak.max(seconds.1);
        }
        let journey =
            |name: &String| scenario.cohort[name].get_ref().journey.iter().map(|step| step.get_ref().clone()).collect();
        let cohort = |(name, arrivals): (&&String, &u64)| Cohort {
            name: (*name).clone(),
            arrivals: *arrivals,
            journey: journey(name),
        };
        let item = |item: &crate::scenario::Item| {
            format!(
                "{}: {} units at {}, at most {} for each user, from {} to {}, held for {}",
                item.id, item.stock, item.price_cents, item.per_user_limit, item.opens_at, item.closes_at, item.hold
            )
        };
        let (target, tag, audit) = match &scenario.target {
            Target::Reference(reference) => (
                format!("the reference service, strategy {}", reference.strategy),
                None,
                "its audit listener".to_owned(),
            ),
            Target::External(external) => {
                let audit = match (&external.audit, &external.sql, &external.audit_command) {
                    (Some(at), ..) => format!("the audit listener at {}", at.get_ref()),
                    (_, Some(_), _) => "queries to its Postgres".to_owned(),
                    (_, _, Some(command)) => format!("`{}`", command.get_ref().join(" ")),
                    _ => "nobody tells: judged from the client's side alone".to_owned(),
                };
                (format!("the service at {}", external.address.get_ref()), external.tag().map(str::to_owned), audit)
            }
        };
        Plan {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            target,
            tag,
            items: scenario.item.iter().map(item).collect(),
            arrivals: counts.iter().sum(),
            cohorts: names.iter().zip(&counts).map(cohort).collect(),
            peak_per_second: peak,
            duration_s: scenario.load.duration.0.as_secs_f64(),
            faults: scenario.timeline().iter().map(crate::scenario::Planned::plan).collect(),
            commands: commands(scenario),
            audit,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("{}, seed {}: nothing is started, this is the plan", self.scenario, self.seed)];
        lines.push(format!("target    {}", self.target));
        lines.extend(self.tag.iter().map(|tag| format!("tag       {tag}: the run's id, on every request")));
        lines.extend(self.items.iter().map(|item| format!("item      {item}")));
        for Cohort { name, arrivals, journey } in &self.cohorts {
            lines.push(format!("cohort    {name}: {arrivals} arrivals, each {}", journey.join(" → ")));
        }
        lines.push(format!(
            "load      {} arrivals in {:.1} s, at most {} in one second",
            self.arrivals, self.duration_s, self.peak_per_second
        ));
        for fault in &self.faults {
            let place = fault.link.as_ref().or(fault.role.as_ref()).map_or("", String::as_str);
            let (at, until) = (fault.at_us as f64 / 1e6, fault.until_us as f64 / 1e6);
            let when = fault.trigger.as_ref().map_or(format!("{at:.1} s to {until:.1} s"), Clone::clone);
            lines.push(format!("fault     {} on {place}, {when}: {} ({})", fault.kind, fault.detail, fault.id));
        }
        for (what, command) in &self.commands {
            lines.push(format!("{what:9} {command}"));
        }
        lines.push(format!("audit     {}", self.audit));
        lines.join("\n")
    }
}

fn commands(scenario: &Scenario) -> Vec<(String, String)> {
    let Target::External(external) = &scenario.target else { return Vec::new() };
    let mut all = Vec::new();
    let mut add = |what: &str, command: &[String]| all.push((what.to_owned(), command.join(" ")));
    for (role, process) in &external.process {
        let process = process.get_ref();
        let command = process.start.clone().or_else(|| Some(vec!["container".into(), process.container.clone()?]));
        add("process", &[&[format!("{role}:")][..], &command.unwrap_or_default()].concat());
    }
    for (name, link) in &external.link {
        let link = link.get_ref();
        add("link", &[format!("{name}: a proxy on {} leads to {}", link.listen, link.upstream)]);
    }
    if let Some(setup) = &external.setup {
        add("set-up", setup.get_ref());
    }
    if let Some(cleanup) = &external.cleanup {
        add("clean-up", &cleanup.get_ref().command);
        if let Some(verify) = &cleanup.get_ref().verify {
            add("verify", verify);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_who_comes_what_breaks_and_what_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("short.toml");
        let text = include_str!("../tests/e2e/support/short.toml").replace(
            "[target.reference]\npool = 8",
            "[target.external]\naddress = \"127.0.0.1:1\"\nsetup = [\"./shop\", \"reset\"]\n\
             cleanup = { command = [\"./shop\", \"forget\"] }\n[target.external.process.service]\nstart = [\"./shop\", \"serve\"]",
        );
        std::fs::write(&file, text.replace("service→postgres", "client→service")).unwrap();
        let scenario = crate::scenario::load(&file, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario;
        let plan = Plan::of(&scenario);
        assert_eq!(plan.arrivals, scenario.plan().count_and_hash().0);
        assert!(plan.peak_per_second > 30 && plan.peak_per_second < plan.arrivals);
        let text = plan.text();
        for says in [
            "the service at 127.0.0.1:1",
            "x-rehearsal: the run's id",
            "1: 80 units at 9900",
            "each login → state → order",
            "fault     kill on service, 3.5 s to 5.0 s",
            "process   service: ./shop serve",
            "set-up    ./shop reset",
            "clean-up  ./shop forget",
            "judged from the client's side alone",
        ] {
            assert!(text.contains(says), "{says}:\n{text}");
        }
    }
}
