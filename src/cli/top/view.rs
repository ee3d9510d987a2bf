//! How `tierway top` is drawn.
//!
//! Start reading at [`draw`].

use super::figures::{DeploymentFigures, GatewayFigures};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};

/// The events that are shown.
const EVENTS: usize = 4;
/// How old the newest second may be before that is said, in milliseconds.
const LATE_MS: i64 = 5_000;

/// Draws what is known at `now`, in Unix milliseconds.
pub(super) fn draw(frame: &mut Frame<'_>, figures: &mut GatewayFigures, now: i64) {
    let parts = [
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Min(4),
        Constraint::Length(2 + EVENTS as u16),
    ];
    let [head, numbers, rate, table, events] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(title(figures, now), head);
    frame.render_widget(Paragraph::new(requests(figures)).block(Block::bordered().title(" requests ")), numbers);
    let width = usize::from(rate.width.saturating_sub(2));
    let first = figures.seconds.len().saturating_sub(width);
    let bars = Sparkline::default().data(figures.seconds.iter().skip(first).map(|second| second.requests));
    let bars = bars.style(Style::new().fg(Color::Cyan)).block(Block::bordered().title(" ended each second "));
    frame.render_widget(bars, rate);
    // A border above and below, and the names of the columns.
    let room = usize::from(table.height.saturating_sub(3));
    figures.above = figures.above.min(figures.shown().len().saturating_sub(room));
    frame.render_widget(deployments(figures), table);
    let latest = figures.events.iter().rev().take(EVENTS).map(|event| Line::from(event.clone()));
    frame.render_widget(Paragraph::new(latest.collect::<Vec<_>>()).block(Block::bordered().title(" events ")), events);
}

fn title(figures: &GatewayFigures, now: i64) -> Line<'static> {
    let newest = figures.newest.parse::<jiff::Timestamp>().map(|time| time.as_millisecond());
    let age_ms = newest.map_or(0, |newest| now - newest);
    let (colour, word) = match &figures.lost {
        Some(why) => (Color::Red, format!("no connection: {why}")),
        None if figures.newest.is_empty() => (Color::Yellow, "connecting".to_owned()),
        None if age_ms > LATE_MS => (Color::Yellow, format!("nothing came for {} s", age_ms / 1_000)),
        None => (Color::Green, "live".to_owned()),
    };
    let keys = if figures.typing {
        format!("  search: {}_", figures.search)
    } else if figures.search.is_empty() {
        "  q end  / search  ↑↓ move".to_owned()
    } else {
        format!("  search: {}  Esc takes it away", figures.search)
    };
    let url = format!("tierway top  {}  ", figures.url);
    Line::from(vec![url.into(), Span::styled(format!("● {word}"), Style::new().fg(colour)), keys.into()])
}

fn requests(figures: &GatewayFigures) -> Vec<Line<'static>> {
    let of = figures.rate(|second| second.requests);
    let attempts = figures.rate(|second| second.attempts);
    let faults: u64 = figures.seconds.iter().rev().take(60).map(|second| second.faults).sum();
    let colour = if faults == 0 { Color::Green } else { Color::Red };
    let latest = |of: fn(&super::figures::GatewaySecond) -> Option<u64>| figures.seconds.iter().rev().find_map(of);
    let per_hour: f64 =
        figures.seconds.iter().rev().take(60).map(|second| second.cost_usd).sum::<f64>().max(0.0) * 60.0;
    let injected = match figures.faults_active {
        0 => String::new(),
        some => format!("  {some} faults injected"),
    };
    vec![
        Line::from(vec![
            format!(" {of:.1}/s  ").into(),
            Span::styled(format!("failed in the last minute {faults}"), Style::new().fg(colour)),
            format!(
                "  refused {:.1}/s  attempts per request {}  in flight {}",
                figures.rate(|second| second.refused),
                if of > 0.0 { format!("{:.2}", attempts / of) } else { "–".to_owned() },
                figures.attempts_in_flight
            )
            .into(),
            Span::styled(injected, Style::new().fg(Color::Red)),
        ]),
        Line::from(format!(
            " first token p50 {} / p99 {}  spent: {} an hour, at the last minute's rate; {} in 24 h",
            time(latest(|second| second.p50_us)),
            time(latest(|second| second.p99_us)),
            dollars(Some(per_hour)),
            dollars(figures.spent)
        )),
    ]
}

fn deployments(figures: &GatewayFigures) -> Table<'static> {
    let row = |one: &DeploymentFigures| {
        let (rate, failed) = figures.rates_of(&one.name);
        let colour = match one.state.as_str() {
            "closed" => Color::Green,
            "open" => Color::Red,
            _ => Color::Yellow,
        };
        let state = if one.cause.is_empty() { one.state.clone() } else { format!("{}: {}", one.state, one.cause) };
        let failing = if failed > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new(vec![
            Line::from(one.name.clone()),
            Line::from(one.tiers.clone()),
            Line::from(one.region.clone()),
            Line::styled(state, Style::new().fg(colour)),
            Line::from(format!("{rate:.1}")).right_aligned(),
            Line::styled(format!("{failed:.1}"), failing).right_aligned(),
            Line::from(one.in_flight.to_string()).right_aligned(),
            Line::from(format!("{} / {}", time(one.p50_us), time(one.p99_us))).right_aligned(),
        ])
    };
    let shown = figures.shown();
    let title = format!(" deployments {} of {} ", shown.len().saturating_sub(figures.above), shown.len());
    let rows: Vec<Row<'static>> = shown.into_iter().skip(figures.above).map(row).collect();
    let widths = [
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Fill(3),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(17),
    ];
    let names = ["deployment", "tiers", "region", "state", "   at/s", " fail/s", "in flight", "        p50 / p99"];
    let head = Row::new(names).style(Style::new().bold());
    Table::new(rows, widths).header(head).block(Block::bordered().title(title))
}

/// A time in microseconds, in the unit that fits it.
fn time(us: Option<u64>) -> String {
    match us {
        None => "–".to_owned(),
        Some(us) if us < 10_000 => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) if us < 1_000_000 => format!("{} ms", us / 1_000),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn dollars(usd: Option<f64>) -> String {
    match usd {
        None => "–".to_owned(),
        Some(usd) if usd == 0.0 || usd >= 0.01 => format!("${usd:.2}"),
        Some(usd) => format!("${usd:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};

    const SECOND_MS: i64 = 1_796_040_000_000;

    fn status() -> Value {
        let row = |name: &str, state: &str, cause: Value| {
            let latency = json!({ "p50_us": 41_000, "p99_us": 1_250_000 });
            json!({
                "deployment": name, "tiers": ["default", "premium"], "region": "us-east", "state": state, "cause": cause,
                "attempts_in_flight": 3, "stream_first_token": latency,
            })
        };
        let many = (0..30).map(|number| row(&format!("spare-{number}/m"), "closed", Value::Null));
        let first = [row("us/m", "open", json!("connect_timeout"))];
        json!({ "deployments": first.into_iter().chain(many).collect::<Vec<_>>() })
    }

    fn drawn(figures: &mut GatewayFigures, now: i64) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 30)).expect("it is memory");
        terminal.draw(|frame| draw(frame, figures, now)).expect("it is memory");
        let cells = terminal.backend().buffer().content();
        cells.chunks(120).map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn figures() -> GatewayFigures {
        let mut figures = GatewayFigures::new("http://127.0.0.1:8081".to_owned(), &status());
        figures.connected();
        figures.add_second(&json!({
            "time": "2026-11-30T12:00:00.000Z", "requests": 40, "faults": 1, "refused": 2, "attempts": 44,
            "attempts_in_flight": 12, "faults_active": 1, "first_token_p50_us": 42_000, "first_token_p99_us": 9_100,
            "cost_usd": "0.002",
            "deployments": [{ "deployment": "us/m", "tier": "default", "attempts": 44, "failed": 4 }],
        }));
        figures.add_event(&json!({
            "time": "2026-11-30T12:00:00.000Z", "kind": "trip", "subject": "us/m", "detail": "connect_timeout",
        }));
        figures
    }

    #[test]
    fn it_shows_traffic_deployments_and_events() {
        let mut figures = figures();
        figures.set_spent(Some(1.5));
        let shown = drawn(&mut figures, SECOND_MS);
        for wanted in [
            "tierway top  http://127.0.0.1:8081  ● live  q end",
            "40.0/s  failed in the last minute 1  refused 2.0/s  attempts per request 1.10  in flight 12  1 faults injected",
            "first token p50 42 ms / p99 9.1 ms  spent: $0.12 an hour, at the last minute's rate; $1.50 in 24 h",
            "deployments 31 of 31",
            "open: connect timeout",
            "41 ms / 1.2 s",
            "12:00:00Z  trip  us/m  connect_timeout",
        ] {
            assert!(shown.contains(wanted), "{wanted:?} is not in\n{shown}");
        }
    }

    #[test]
    fn it_stops_at_the_last_row() {
        let mut figures = figures();
        figures.above = 1_000;
        let shown = drawn(&mut figures, SECOND_MS);
        assert!(shown.contains("spare-29/m") && !shown.contains("open: connect timeout"), "{shown}");
        assert!(figures.above < 31, "the next key moves it at once");
        figures.search = "spare-7".to_owned();
        let shown = drawn(&mut figures, SECOND_MS);
        assert!(shown.contains("spare-7/m") && !shown.contains("spare-8/m") && shown.contains("1 of 1"), "{shown}");
    }

    #[test]
    fn what_is_old_is_said_to_be() {
        let mut figures = figures();
        assert!(drawn(&mut figures, SECOND_MS + 7_000).contains("● nothing came for 7 s"));
        figures.lost("connection refused".to_owned());
        let shown = drawn(&mut figures, SECOND_MS);
        assert!(shown.contains("● no connection: connection refused") && shown.contains("40.0/s"), "{shown}");
    }
}
