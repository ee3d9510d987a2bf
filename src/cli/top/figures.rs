//! What `tierway top` knows of a gateway, and what is looked at of it.
//!
//! Start reading in [`GatewayFigures`].

use crate::cli::printable;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// The seconds that are kept: what a wide terminal shows.
const SECONDS: usize = 300;
/// The seconds that a rate is of, so that it does not jump.
const SMOOTHED: usize = 5;
/// The events that are kept.
const EVENTS: usize = 100;

/// One second of traffic.
#[derive(Clone, Default, Debug)]
pub(super) struct GatewaySecond {
    pub(super) requests: u64,
    pub(super) refused: u64,
    /// Those that failed through the gateway or its providers.
    pub(super) faults: u64,
    pub(super) attempts: u64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) cost_usd: f64,
    /// By deployment: attempts, and those of them that failed.
    deployments: BTreeMap<String, (u64, u64)>,
}

/// One deployment, as the status has it.
#[derive(Clone, Debug)]
pub(super) struct DeploymentFigures {
    pub(super) name: String,
    pub(super) tiers: String,
    pub(super) region: String,
    pub(super) state: String,
    /// Why it does not get its traffic; empty: it does.
    pub(super) cause: String,
    pub(super) in_flight: u64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
}

/// Whether it goes on after a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyOutcome {
    /// It does.
    GoesOn,
    /// It was ended.
    Ends,
}

/// What is known, and what is looked at.
pub(super) struct GatewayFigures {
    /// Where the gateway is.
    pub(super) url: String,
    /// Why nothing comes in; `None`: it does.
    pub(super) lost: Option<String>,
    pub(super) seconds: VecDeque<GatewaySecond>,
    /// The newest second, as the gateway dates it; empty: none came yet.
    pub(super) newest: String,
    pub(super) attempts_in_flight: u64,
    pub(super) faults_active: u64,
    deployments: Vec<DeploymentFigures>,
    /// The newest last.
    pub(super) events: VecDeque<String>,
    /// Of the last day, in USD.
    pub(super) spent: Option<f64>,
    pub(super) search: String,
    /// Whether the search is being typed.
    pub(super) typing: bool,
    /// How many rows are above the first one shown.
    pub(super) above: usize,
}

impl GatewayFigures {
    /// Of the gateway at `url`, whose status is known.
    pub(super) fn new(url: String, status: &Value) -> Self {
        let mut figures = Self {
            url,
            lost: None,
            seconds: VecDeque::new(),
            newest: String::new(),
            attempts_in_flight: 0,
            faults_active: 0,
            deployments: Vec::new(),
            events: VecDeque::new(),
            spent: None,
            search: String::new(),
            typing: false,
            above: 0,
        };
        figures.set_status(status);
        figures
    }

    pub(super) fn connected(&mut self) {
        self.lost = None;
    }

    pub(super) fn lost(&mut self, why: String) {
        self.lost = Some(why);
    }

    pub(super) fn set_status(&mut self, status: &Value) {
        let rows = status["deployments"].as_array().into_iter().flatten();
        self.deployments = rows.map(DeploymentFigures::of).collect();
    }

    pub(super) fn set_spent(&mut self, spent: Option<f64>) {
        self.spent = spent;
    }

    pub(super) fn add_second(&mut self, object: &Value) {
        let number = |name: &str| object[name].as_u64().unwrap_or_default();
        let mut deployments: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for one in object["deployments"].as_array().into_iter().flatten() {
            // One deployment has a row for each tier that its attempts came through.
            let sum = deployments.entry(text(&one["deployment"])).or_default();
            sum.0 += one["attempts"].as_u64().unwrap_or_default();
            sum.1 += one["failed"].as_u64().unwrap_or_default();
        }
        self.seconds.push_back(GatewaySecond {
            requests: number("requests"),
            refused: number("refused"),
            faults: number("faults"),
            attempts: number("attempts"),
            p50_us: object["first_token_p50_us"].as_u64(),
            p99_us: object["first_token_p99_us"].as_u64(),
            cost_usd: object["cost_usd"].as_str().and_then(|usd| usd.parse().ok()).unwrap_or_default(),
            deployments,
        });
        self.newest = text(&object["time"]);
        self.attempts_in_flight = number("attempts_in_flight");
        self.faults_active = number("faults_active");
        while self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
    }

    pub(super) fn add_event(&mut self, object: &Value) {
        let [time, kind, subject, detail] = ["time", "kind", "subject", "detail"].map(|name| text(&object[name]));
        let clock = time.get(11..19).unwrap_or_default();
        let event = format!("{clock}Z  {}  {subject}  {detail}", kind.replace('_', " "));
        self.events.push_back(event.trim_end().to_owned());
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// The deployments that are searched for, in the order of the file.
    pub(super) fn shown(&self) -> Vec<&DeploymentFigures> {
        let search = self.search.to_lowercase();
        let is_meant = |one: &&DeploymentFigures| {
            [&one.name, &one.tiers, &one.region, &one.state].iter().any(|text| text.to_lowercase().contains(&search))
        };
        self.deployments.iter().filter(is_meant).collect()
    }

    /// The mean of `of` over the last seconds.
    pub(super) fn rate(&self, of: impl Fn(&GatewaySecond) -> u64) -> f64 {
        let (sum, seconds) = self.lately().fold((0, 0_u32), |(sum, seconds), second| (sum + of(second), seconds + 1));
        sum as f64 / f64::from(seconds.max(1))
    }

    /// Attempts a second at `deployment`, and those of them that failed.
    pub(super) fn rates_of(&self, deployment: &str) -> (f64, f64) {
        let of = |second: &GatewaySecond| second.deployments.get(deployment).copied().unwrap_or_default();
        (self.rate(|second| of(second).0), self.rate(|second| of(second).1))
    }

    /// The newest first.
    fn lately(&self) -> impl Iterator<Item = &GatewaySecond> {
        self.seconds.iter().rev().take(SMOOTHED)
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> KeyOutcome {
        if key.kind == KeyEventKind::Release {
            return KeyOutcome::GoesOn;
        }
        let is_interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        match key.code {
            _ if is_interrupt => return KeyOutcome::Ends,
            KeyCode::Enter if self.typing => self.typing = false,
            KeyCode::Esc if self.typing || !self.search.is_empty() => {
                (self.typing, self.above) = (false, 0);
                self.search.clear();
            }
            KeyCode::Backspace if self.typing => drop(self.search.pop()),
            KeyCode::Char(character) if self.typing => {
                self.search.push(character);
                self.above = 0;
            }
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('q') | KeyCode::Esc => return KeyOutcome::Ends,
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            // Drawing knows how many there is room for.
            KeyCode::Down | KeyCode::Char('j') => self.above = self.above.saturating_add(1),
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        KeyOutcome::GoesOn
    }
}

impl DeploymentFigures {
    fn of(row: &Value) -> Self {
        let tiers = row["tiers"].as_array().into_iter().flatten().map(text);
        let latency = |percentile: &str| {
            let of = |kind: &str| row[kind][percentile].as_u64();
            of("stream_first_token").or_else(|| of("whole_answer"))
        };
        Self {
            name: text(&row["deployment"]),
            tiers: tiers.collect::<Vec<_>>().join(","),
            region: text(&row["region"]),
            state: text(&row["state"]),
            cause: text(&row["cause"]).replace('_', " "),
            in_flight: row["attempts_in_flight"].as_u64().unwrap_or_default(),
            p50_us: latency("p50_us"),
            p99_us: latency("p99_us"),
        }
    }
}

/// What a gateway says may hold anything; a terminal obeys some of it.
fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn second(requests: u64, attempts: u64, failed: u64) -> Value {
        let at = |tier: &str| json!({ "deployment": "us/m", "tier": tier, "attempts": attempts, "failed": failed });
        json!({
            "object": "second", "time": "2026-11-30T12:00:00.000Z", "requests": requests, "attempts": 2 * attempts,
            "cost_usd": "0.5", "deployments": [at("default"), at("premium")],
        })
    }

    fn typed(figures: &mut GatewayFigures, keys: &[KeyCode]) -> Vec<KeyOutcome> {
        keys.iter().map(|key| figures.press(KeyEvent::from(*key))).collect()
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_of_all_tiers() {
        let mut figures = GatewayFigures::new(String::new(), &json!({}));
        assert_eq!((figures.rate(|one| one.requests), figures.rates_of("us/m")), (0.0, (0.0, 0.0)));
        figures.add_second(&second(1_000, 0, 0));
        (0..5).for_each(|_| figures.add_second(&second(10, 3, 1)));
        assert_eq!((figures.rate(|one| one.requests), figures.rates_of("us/m")), (10.0, (6.0, 2.0)));
        (0..1_000).for_each(|_| figures.add_second(&second(0, 0, 0)));
        assert_eq!(figures.seconds.len(), SECONDS);
    }

    #[test]
    fn keys_search_move_and_end() {
        let row = |name: &str, region: &str| json!({ "deployment": name, "region": region, "tiers": ["default"] });
        let status = json!({ "deployments": [row("a/m", "us"), row("b/m", "eu")] });
        let mut figures = GatewayFigures::new(String::new(), &status);
        typed(&mut figures, &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Backspace, KeyCode::Char('B')]);
        assert!(figures.typing, "q is a letter of the search");
        assert_eq!(figures.shown().iter().map(|one| &*one.name).collect::<Vec<_>>(), ["b/m"]);
        assert_eq!(typed(&mut figures, &[KeyCode::Enter, KeyCode::Down, KeyCode::Esc]), [KeyOutcome::GoesOn; 3]);
        assert_eq!((figures.shown().len(), figures.above), (2, 0), "the search is taken away first");
        assert_eq!(typed(&mut figures, &[KeyCode::Esc]), [KeyOutcome::Ends]);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        figures.typing = true;
        assert_eq!(figures.press(interrupt), KeyOutcome::Ends);
    }

    #[test]
    fn what_a_gateway_says_cannot_command_the_terminal() {
        let mut figures =
            GatewayFigures::new(String::new(), &json!({ "deployments": [{ "deployment": "\u{1b}[2Jx" }] }));
        figures
            .add_event(&json!({ "time": "2026-11-30T12:00:07.000Z", "kind": "reload_refused", "subject": "\u{1b}c" }));
        assert!(!figures.shown()[0].name.contains('\u{1b}') && !figures.events[0].contains('\u{1b}'));
        assert!(figures.events[0].starts_with("12:00:07Z  reload refused"), "{:?}", figures.events);
    }
}
