//! A scenario as it runs, in a terminal: which regions serve, how much is answered and how fast, and what breakers do.
//!
//! It draws on the terminal's second screen, so that what was printed before stays as it is, and always leaves that screen.
//!
//! Start reading in [`ScenarioView::show`]; its figures are in `figures.rs`.

use super::drive::{ScenarioProgress, TIMES};
use super::figures::LiveRecord;
use crate::cli::terminal_screen::{ScreenKeys, TerminalScreen};
use crate::domain::drill::DrillPhase;
use parking_lot::Mutex;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often it is drawn, and how often deployments are asked after.
const EVERY: Duration = Duration::from_millis(200);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What is shown of a deployment.
#[derive(Clone)]
pub(super) struct DeploymentRow {
    pub(super) deployment: String,
    pub(super) region: String,
    /// Of its breaker, as `tierway status` has it.
    pub(super) state: String,
}

/// The scenario that is shown.
#[derive(Default)]
pub(super) struct LiveContext {
    /// What happens, in a sentence.
    pub(super) title: String,
    /// The region that breaks, if one does.
    pub(super) target: Option<Arc<str>>,
    pub(super) regions: Vec<Arc<str>>,
    /// What was last heard of deployments.
    pub(super) deployments: Mutex<Vec<DeploymentRow>>,
}

/// A terminal that shows scenarios, until it is dropped.
pub(super) struct ScenarioView(TerminalScreen);

impl ScenarioView {
    /// Takes the second screen.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(super) fn open() -> io::Result<Self> {
        TerminalScreen::open(ScreenKeys::Untouched).map(Self)
    }

    /// Shows `context` until `progress` is stopped, with what `deployments` says where it says something. A terminal that is
    /// gone does not end the drill.
    pub(super) async fn show(
        &mut self,
        context: &LiveContext,
        progress: &ScenarioProgress,
        deployments: impl AsyncFn() -> Option<Vec<DeploymentRow>>,
    ) {
        let asking = async {
            while !progress.is_stopped() {
                if let Some(rows) = deployments().await {
                    *context.deployments.lock() = rows;
                }
                progress.clock.sleep(ASK_EVERY).await;
            }
        };
        tokio::join!(self.draw_until_stopped(context, progress), asking);
    }

    async fn draw_until_stopped(&mut self, context: &LiveContext, progress: &ScenarioProgress) {
        while !progress.is_stopped() {
            let elapsed = progress.elapsed();
            let record = progress.look(|sent| LiveRecord::of(sent, elapsed, &context.regions));
            if self.0.draw(|frame| draw(frame, context, &record, elapsed)).is_err() {
                return;
            }
            progress.clock.sleep(EVERY).await;
        }
    }
}

fn draw(frame: &mut Frame<'_>, context: &LiveContext, record: &LiveRecord, elapsed: Duration) {
    let phase = TIMES.phase(elapsed);
    let regions = u16::try_from(context.regions.len()).unwrap_or(u16::MAX);
    let rows = [
        Constraint::Length(2),
        Constraint::Length(regions.saturating_add(2)),
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Min(3),
    ];
    let [head, lamps, figures, rate, breakers] = Layout::vertical(rows).areas(frame.area());
    let colour = if phase == DrillPhase::During { Color::Red } else { Color::Green };
    let phase = Span::styled(format!("{:>7}", phase.label()), Style::new().fg(colour).bold());
    let title = Line::from(vec![phase, format!(" {:>4.1} s  {}", elapsed.as_secs_f64(), context.title).into()]);
    frame.render_widget(Paragraph::new(title), head);
    let lines: Vec<Line<'_>> = record
        .regions
        .iter()
        .map(|(region, served)| lamp(region, *served, is_broken(context, region, elapsed)))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" regions ")), lamps);
    frame.render_widget(Paragraph::new(numbers(record)).block(Block::bordered().title(" requests ")), figures);
    // The second that goes on is not whole.
    let seconds = record.answered.len().saturating_sub(1);
    let sparkline = Sparkline::default().data(record.answered[..seconds].iter().copied());
    let sparkline =
        sparkline.style(Style::new().fg(Color::Cyan)).block(Block::bordered().title(" answered each second "));
    frame.render_widget(sparkline, rate);
    frame.render_widget(table(&context.deployments.lock()), breakers);
}

fn is_broken(context: &LiveContext, region: &Arc<str>, elapsed: Duration) -> bool {
    TIMES.phase(elapsed) == DrillPhase::During && context.target.as_ref() == Some(region)
}

fn lamp(region: &str, served: usize, is_broken: bool) -> Line<'static> {
    let (colour, word) = match (is_broken, served) {
        (true, _) => (Color::Red, "broken"),
        (false, 0) => (Color::DarkGray, "idle"),
        (false, _) => (Color::Green, "serves"),
    };
    let lamp = Span::styled(" ● ", Style::new().fg(colour));
    Line::from(vec![lamp, format!("{region:<24} {word:<7} {served:>5}/s").into()])
}

fn numbers(record: &LiveRecord) -> Line<'static> {
    let ms = |time: Option<Duration>| time.map_or_else(|| "–".to_owned(), |time| time.as_millis().to_string());
    let answered: u64 = record.answered.iter().sum();
    let lost = record.failed + record.spoilt;
    let colour = if lost == 0 { Color::Green } else { Color::Red };
    Line::from(vec![
        format!(" answered {answered}  ").into(),
        Span::styled(format!("failed {}  broken off {}  ", record.failed, record.spoilt), Style::new().fg(colour)),
        format!("refused {}  first bytes p50 {} / p99 {} ms", record.refused, ms(record.p50), ms(record.p99)).into(),
    ])
}

fn table(deployments: &[DeploymentRow]) -> Table<'static> {
    let row = |deployment: &DeploymentRow| {
        let colour = match deployment.state.as_str() {
            "closed" => Color::Green,
            "open" => Color::Red,
            _ => Color::Yellow,
        };
        let state = Span::styled(deployment.state.clone(), Style::new().fg(colour));
        Row::new(vec![Line::from(deployment.deployment.clone()), Line::from(deployment.region.clone()), state.into()])
    };
    let widths = [Constraint::Min(20), Constraint::Length(20), Constraint::Length(10)];
    let rows: Vec<Row<'static>> = deployments.iter().map(row).collect();
    Table::new(rows, widths).block(Block::bordered().title(" breakers "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn it_shows_regions_figures_and_breakers() {
        let row = DeploymentRow { deployment: "east/small".into(), region: "us-east".into(), state: "open".into() };
        let context = LiveContext {
            title: "us-east refuses every connection".to_owned(),
            target: Some("us-east".into()),
            regions: vec!["us-east".into(), "us-west".into()],
            deployments: Mutex::new(vec![row]),
        };
        let record = LiveRecord {
            answered: vec![40, 41, 3],
            failed: 1,
            spoilt: 0,
            refused: 2,
            p50: Some(Duration::from_millis(60)),
            p99: Some(Duration::from_millis(99)),
            regions: vec![("us-east".into(), 0), ("us-west".into(), 80)],
        };
        let mut terminal = Terminal::new(TestBackend::new(90, 20)).expect("it is memory");
        let elapsed = Duration::from_millis(9_400);
        terminal.draw(|frame| draw(frame, &context, &record, elapsed)).expect("it is memory");
        let cells = terminal.backend().buffer().content();
        let text: String = cells.iter().map(|cell| cell.symbol()).collect();
        for wanted in [
            "during  9.4 s  us-east refuses every connection",
            "us-east                  broken      0/s",
            "us-west                  serves     80/s",
            "answered 84",
            "failed 1  broken off 0",
            "p50 60 / p99 99 ms",
            "east/small",
            "open",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in {text}");
        }
    }
}
