//! `[gate]`: whether its numbers make sense, and its phases exist.

use super::super::Scenario;
use super::super::diagnose::Place;
use super::super::gate::Gate;
use super::Mistakes;

pub(super) fn gate(scenario: &Scenario, m: &mut Mistakes) {
    let Gate { rounds, turn, alpha, drift, saturated, effect, .. } = &scenario.gate;
    if !(2..=1_000).contains(rounds) {
        m.add(
            Place::key("gate.rounds"),
            format!("gate: `rounds` is {rounds}"),
            "from 2, since one provisioning alone convicts nobody, to 1000",
        );
    }
    if !(20_000..=60_000_000).contains(&turn.micros()) {
        m.add(Place::key("gate.turn"), format!("gate: `turn` is {turn}"), "from 20ms to 1m, such as \"250ms\"");
    }
    if !(*alpha > 0.0 && *alpha <= 0.2) {
        m.add(Place::key("gate.alpha"), format!("gate: `alpha` is {alpha}"), "above 0 and at most 0.2, such as 0.01");
    }
    if !(0.0..=10.0).contains(drift) {
        m.add(Place::key("gate.drift"), format!("gate: `drift` is {drift}"), "from 0 to 10, such as 0.15");
    }
    for (key, value) in effect.all() {
        if !(value > 0.0 && value <= 100.0) {
            let help = "above 0 and at most 100, such as 0.1 for a tenth";
            m.add(Place::key(&format!("gate.effect.{key}")), format!("gate: the effect `{key}` is {value}"), help);
        }
    }
    for phase in saturated.iter().filter(|name| !scenario.phase.iter().any(|phase| phase.name == **name)) {
        let known: Vec<&str> = scenario.phase.iter().map(|phase| phase.name.as_str()).collect();
        let known = if known.is_empty() {
            "the scenario has no [[phase]]".to_owned()
        } else {
            format!("one of {}", known.join(", "))
        };
        m.add(Place::key("gate.saturated"), format!("gate: there is no phase \"{phase}\""), known);
    }
}
