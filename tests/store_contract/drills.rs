//! What every register guarantees of the reports of drills: of each scenario the last one, as it was written.

use super::{InMemory, InPostgres, InSqlite, NOW, RegisterFixture, wait};
use tierway::domain::drill::report::{DrillReport, ReportedCheck};

fn report(scenario: &str, number: i64) -> DrillReport {
    let check = |name: &str, objective: Option<&str>| ReportedCheck {
        name: name.into(),
        measured: format!("{number} ms").into(),
        objective: objective.map(Into::into),
        detail: format!("p50 {number} ms; it's \"quoted\", and é").into(),
        passed: number % 2 == 0,
    };
    DrillReport {
        scenario: scenario.into(),
        finished_unix_ms: NOW + number,
        configuration: "/etc/tierway/tierway.toml".into(),
        region: "us-east".into(),
        policies: vec!["pro".into(), "standard".into()],
        passed: number % 2 == 0,
        checks: vec![check("time to route around, p99", Some("1000 ms")), check("answers that broke", None)],
    }
}

fn the_last_of_each_scenario_is_kept(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let kept = || wait(register.drill_reports()).expect("they can be read");
    assert_eq!(kept(), []);
    for (scenario, number) in [("region-down", 1), ("burst-10x", 2), ("region-down", 3)] {
        wait(register.keep_drill_report(report(scenario, number))).expect("it is written");
    }
    assert_eq!(kept(), [report("burst-10x", 2), report("region-down", 3)]);
    assert_eq!(super::audits::intact_rows(register), 0, "nobody's keys, teams or credit were changed");
}

#[test]
fn reports_of_drills() {
    the_last_of_each_scenario_is_kept(&InMemory::new());
    the_last_of_each_scenario_is_kept(&InSqlite::of_gateway());
    the_last_of_each_scenario_is_kept(&InSqlite::of_command());
    the_last_of_each_scenario_is_kept(&InPostgres::of_gateway());
    the_last_of_each_scenario_is_kept(&InPostgres::of_command());
}
