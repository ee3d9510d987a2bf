//! The second screen of a terminal: what was printed before stays as it is, and is there again afterwards.
//!
//! Start reading at [`TerminalScreen::open`].

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};
use std::io::{self, IsTerminal, Stdout, stdout};
use std::panic;

/// What a screen takes of the keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ScreenKeys {
    /// Nothing: Ctrl-C interrupts, as everywhere.
    Untouched,
    /// Each key as it is pressed; Ctrl-C is one of them.
    EachKey,
}

/// The second screen of the terminal, until it is dropped.
pub(super) struct TerminalScreen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// Whether stdout is a terminal, called `name`, that can show it.
pub(super) fn is_possible(name: Option<&str>) -> bool {
    stdout().is_terminal() && name.is_some_and(|name| !name.is_empty() && name != "dumb")
}

/// Ends the second screen before a panic is reported: otherwise nobody would see the report.
pub(super) fn restore_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}

fn restore() {
    // There is nothing to be done about a terminal that is gone.
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
}

impl TerminalScreen {
    /// Takes the second screen.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub(super) fn open(keyboard: ScreenKeys) -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        if keyboard == ScreenKeys::EachKey {
            enable_raw_mode()?;
        }
        let screen = Self { terminal };
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws what `draw` says, as far as it differs from what is shown.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        restore();
    }
}
