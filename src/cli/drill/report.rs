//! The result of a drill as one HTML page, with a plot for each scenario. It refers to nothing outside itself, and has no
//! script.
//!
//! Start reading at [`page`].

use super::DrillResult;
use super::run::ScenarioRecord;
use super::text::{caveat, objective, source, verdict_of};
use crate::cli::page::{escaped, page as html_page};
use crate::domain::drill::{DrillOutcome, DrillRequest};
use std::fmt::Write;
use std::time::Duration;

/// The plot's size, and the room around it for its axes.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 60.0;
const BELOW: f64 = 34.0;
/// What the plot's time axis shows at its bottom and its top, in milliseconds, on a logarithmic scale.
const FASTEST: f64 = 10.0;
const SLOWEST: f64 = 10_000.0;

/// The page.
pub(super) fn page(result: &DrillResult) -> String {
    let verdict = if result.passed() { "PASS" } else { "FAIL" };
    let mut body = format!(
        "<h1>Drill: <span class=\"{}\">{verdict}</span></h1><p>{}, seed {}. {}</p>\
         <p>Each point of a plot is a request: when it was sent, and how long its first bytes took. Red ones got no answer, or \
         one that broke. The region is broken, or the burst comes, in the grey part.</p>",
        verdict.to_lowercase(),
        escaped(source(result)),
        result.seed,
        caveat(result),
    );
    for scenario in &result.scenarios {
        write_scenario(scenario, &mut body);
    }
    html_page(&format!("Drill: {verdict}"), &body)
}

fn write_scenario(result: &ScenarioRecord, page: &mut String) {
    let _ = write!(page, "<h2>{}</h2><p>{}.</p>", result.scenario.name(), escaped(&result.about()));
    write_plot(result, page);
    page.push_str("<table><tr><th></th><th>what</th><th>measured</th><th>objective</th><th></th></tr>");
    for check in &result.checks {
        let verdict = verdict_of(check);
        let _ = write!(
            page,
            "<tr><td class=\"{}\">{verdict}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><small>{}</small></td></tr>",
            verdict.to_lowercase(),
            escaped(&check.name),
            check.measured,
            objective(check),
            escaped(&check.detail),
        );
    }
    page.push_str("</table>");
}

fn write_plot(result: &ScenarioRecord, page: &mut String) {
    let end = result.requests.iter().map(|request| request.sent).max().unwrap_or(result.times.broken_until);
    let across = |at: Duration| LEFT + (WIDTH - LEFT) * at.as_secs_f64() / end.as_secs_f64().max(0.001);
    let (from, until) = (across(result.times.broken_from), across(result.times.broken_until));
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"first bytes of each request over time\">\
         <rect x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#8a94a0\" fill-opacity=\".22\"/>",
        HEIGHT + BELOW,
        until - from,
    );
    for ms in [10.0, 100.0, 1_000.0, 10_000.0] {
        let y = down(ms);
        let _ = write!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#8a94a0\" stroke-opacity=\".5\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\" fill=\"currentColor\">{ms} ms</text>",
            LEFT - 6.0,
            (y + 4.0).max(10.0),
        );
    }
    for second in 0..=end.as_secs() {
        let x = across(Duration::from_secs(second));
        let _ = write!(
            page,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"currentColor\">{second} s</text>",
            HEIGHT + 18.0,
        );
    }
    for request in &result.requests {
        write_point(request, across(request.sent), page);
    }
    page.push_str("</svg>");
}

fn write_point(request: &DrillRequest, x: f64, page: &mut String) {
    let is_good = request.outcome == DrillOutcome::Answered;
    // Without any bytes, it is shown at the top.
    let y = request.first_bytes.map_or(down(SLOWEST), |took| down(took.as_secs_f64() * 1_000.0));
    let (colour, radius) = if is_good { ("#2f6fb5", 1.8) } else { ("#d3302a", 3.2) };
    let _ = write!(page, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>");
}

/// Where a time in milliseconds is, from the top.
fn down(ms: f64) -> f64 {
    let share = (ms.clamp(FASTEST, SLOWEST) / FASTEST).ln() / (SLOWEST / FASTEST).ln();
    HEIGHT * (1.0 - share)
}
