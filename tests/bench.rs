//! The load generator's scenarios on our own server, as small as they can be: what they check must hold. Nothing here
//! depends on how fast anything is.

use std::time::Duration;

use bench::compare::{Candidate, Comparison, Scenario, compare};
use bench::run::Target;
use bench::workload::{Order, Shape};
use blackbox::{PATIENCE, binary};

fn comparison(scenarios: &[Scenario]) -> Comparison {
    Comparison {
        candidates: vec![Candidate { name: "ours".to_owned(), binary: binary("etcd") }],
        scenarios: scenarios.to_vec(),
        rounds: 1,
        duration: Duration::from_millis(200),
        warm_up: None,
        rate: 1000.0,
        restart_keys: 1,
        members: 1,
        scale: 0.002,
        shape: Shape {
            key_bytes: 8,
            value_bytes: 16,
            keys: 1000,
            order: Order::Random(1),
            serializable: false,
        },
        target: Target { endpoints: Vec::new(), connections: 2, in_flight: 16, answer_timeout: PATIENCE },
        dir: None,
    }
}

#[test]
fn every_scenario_finds_what_it_checks() {
    let scenarios = [
        Scenario::Compact,
        Scenario::Hash,
        Scenario::LargeRange,
        Scenario::WatchFanout,
        Scenario::WatchLag,
        Scenario::Keepalive,
        Scenario::LeaseExpiry,
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let results = compare(&comparison(&scenarios), dir.path(), &mut |_| {}).expect("servers that start");
    assert!(results.errors.is_empty(), "{:?}", results.errors);
    for scenario in scenarios {
        let rows: Vec<_> = results.rows.iter().filter(|row| row.scenario == scenario.name()).collect();
        assert!(!rows.is_empty(), "{} tells nothing", scenario.name());
        assert!(rows.iter().all(|row| row.values[0].len() == 1 && row.values[0][0].is_some()), "{rows:?}");
    }
}
