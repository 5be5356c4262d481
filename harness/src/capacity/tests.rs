use super::*;

fn probe(scale: f64, outcome: Outcome) -> Probe {
    Probe {
        scale,
        rate: scale * 100.0,
        outcome,
        why: Vec::new(),
        requests_per_second: 100.0 * scale.min(2.0),
        served_peak: 100.0 * scale.min(2.0),
        offered_peak: 100.0 * scale,
        orders_per_second: 10.0,
        us_p99: Some(1_000),
        us_p999: None,
        us_mean: 1_000.0 * (1.0 + scale * scale),
        concurrency: 1.0,
        dropped: 0.0,
        cores: Default::default(),
        waits: Default::default(),
        buyers: [1, 10],
        generator_cpu_s: 1.0,
        requests: 1_000,
        unjudged: Vec::new(),
        folder: "probe-01".into(),
        exit_code: 0,
        took_s: 1.0,
    }
}

/// A search in which everything up to a scale holds, and what is above it comes out like this.
fn searched(capacity: f64, over: Outcome) -> (Search, Vec<Probe>) {
    let (mut search, mut probes) = (Search::new(0.25, 8.0), Vec::new());
    for _ in 0..12 {
        let scale = significant(search.next());
        let probe = probe(scale, if scale < capacity { Outcome::Holds } else { over });
        search.saw(scale, probe.holds());
        if let Some(hint) = hint(&probe) {
            search.hint(hint);
        }
        probes.push(probe);
        if known(&search, &probes, 0.01) {
            break;
        }
    }
    (search, probes)
}

#[test]
fn what_was_found_says_who_stood_in_the_way() {
    let (search, probes) = searched(2.0, Outcome::Fails);
    let found = conclude(&search, &probes, 100.0);
    assert_eq!(found.kind, Kind::Found);
    assert!((found.rate / 200.0 - 1.0).abs() < 0.02, "{found:?}");
    assert!(found.highest_held.unwrap() < 200.0);
    assert_eq!(exit_code(&probes, Some(&found)), exit::PASS);

    let (search, probes) = searched(2.0, Outcome::Distrusted);
    let found = conclude(&search, &probes, 100.0);
    assert_eq!((found.kind, exit_code(&probes, Some(&found))), (Kind::GeneratorLimit, exit::UNKNOWN));

    let (search, probes) = searched(100.0, Outcome::Fails);
    let found = conclude(&search, &probes, 100.0);
    assert_eq!((found.kind, exit_code(&probes, Some(&found))), (Kind::AtLeast, exit::PASS));

    let (search, probes) = searched(0.0, Outcome::Fails);
    let found = conclude(&search, &probes, 100.0);
    assert_eq!((found.kind, exit_code(&probes, Some(&found))), (Kind::Below, exit::SLO_MISSED));

    let (search, probes) = searched(2.0, Outcome::Violates);
    let found = conclude(&search, &probes, 100.0);
    assert_eq!(exit_code(&probes, Some(&found)), exit::VIOLATED, "an oversell counts, whatever the rate");
}

#[test]
fn the_hint_of_an_overloaded_service_is_what_it_served() {
    assert_eq!(hint(&probe(4.0, Outcome::Fails)), Some(2.0));
    assert_eq!(hint(&probe(4.0, Outcome::Holds)), None);
    assert_eq!(hint(&probe(1.0, Outcome::Fails)), None, "it served all that came, and was too slow with it");
}

#[test]
fn evidence_comes_from_the_lowest_rate_that_does_not_hold() {
    let probes =
        [2.0, 0.5, 8.0, 1.0].map(|scale| probe(scale, if scale < 1.5 { Outcome::Holds } else { Outcome::Fails }));
    assert_eq!(telling(&probes).unwrap().scale, 2.0);
    assert_eq!(telling(&probes[1..2]).unwrap().scale, 0.5);
    // One that failed by chance below what held tells nothing of the capacity.
    let mut spoiled = probes.to_vec();
    spoiled.push(probe(0.3, Outcome::Fails));
    assert_eq!(telling(&spoiled).unwrap().scale, 2.0);
}

#[test]
fn the_knee_is_where_power_is_greatest() {
    // Throughput over latency, x / (1 + x²), has its peak at 1.
    let probes = [0.25, 0.5, 1.0, 1.8].map(|scale| probe(scale, Outcome::Holds));
    assert_eq!(knee(&probes).unwrap().rate, 100.0);
    assert_eq!(knee(&probes[..2]), None);
}

#[test]
fn sweeps_are_read_and_mistakes_told() {
    let read = |text: &str| text.parse::<Sweep>();
    let sweep = read("target.reference.pool=8,1,2, 4").unwrap();
    assert_eq!((sweep.path.as_str(), sweep.values), ("target.reference.pool", vec![1, 2, 4, 8]));
    for wrong in ["pool", "pool=1,2", "pool=a,b,c,d", "pool=0,1,2,3", "=1,2,3,4", "pool=1,1,1,2"] {
        assert!(read(wrong).unwrap_err().contains("at least four different numbers"), "{wrong}");
    }
}

#[test]
fn scales_have_four_digits() {
    assert_eq!([0.123_456, 1.999_99, 12.345_6].map(significant), [0.123_5, 2.0, 12.35]);
}
