//! `top`: the screen that shows whether this host is protected, what is happening, and why each
//! source is blocked, and on which an administrator can act.

mod draw;
mod feed;
mod state;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::args::Arguments;
use super::failure::Failure;
use super::screen::Screen;
use super::show::Zone;
use super::status;
use crate::sys::terminal;
use state::State;

/// A key is seen at once; news of the daemon and signals are looked for this often.
const TICK: Duration = Duration::from_millis(100);

/// What leaves the alternate screen, and shows the cursor (xterm's control sequences).
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h";

/// Runs the command until `q`, a signal, or the end of the terminal.
pub(super) fn run(arguments: &Arguments, zone: &Zone) -> Result<u8, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top needs a terminal",
            "\"portsentryctl status\" and \"portsentryctl list\" print the same",
        ));
    }
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        let value = usize::try_from(number).unwrap_or(0);
        signal_hook::flag::register_usize(number, Arc::clone(&signal), value)?;
    }
    restore_on_panic();
    enable_raw_mode()?;
    let shown = show(arguments, zone, &signal);
    restore();
    shown?;
    if let Ok(number @ 1..) = i32::try_from(signal.load(Ordering::Relaxed)) {
        // Ends as it would have without a handler.
        signal_hook::low_level::emulate_default_handler(number)?;
    }
    Ok(status::DONE)
}

fn show(arguments: &Arguments, zone: &Zone, signal: &AtomicUsize) -> Result<(), Failure> {
    execute!(io::stdout(), EnterAlternateScreen)?;
    let mut screen = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let (orders, news) = feed::start(&arguments.socket)?;
    let mut state = State::new(zone.clone(), Screen::current().has_colours());
    let mut stale = true;
    loop {
        if stale {
            screen.draw(|frame| draw::draw(frame, &mut state))?;
        }
        stale = false;
        // crossterm would look for input without an end.
        if terminal::has_hung_up(&io::stdin(), TICK) {
            return Ok(());
        }
        if event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if !state.key(key, &orders) {
                        return Ok(());
                    }
                    stale = true;
                }
                Event::Resize(..) => stale = true,
                _ => {}
            }
        }
        if signal.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        while let Ok(update) = news.try_recv() {
            state.take(update);
            stale = true;
        }
    }
}

/// Gives the terminal back. Another thread may hold the lock of standard output: not through that.
fn restore() {
    let _ = disable_raw_mode();
    terminal::write_now(&io::stdout(), LEAVE);
}

/// Whichever thread panics, the message is to be readable.
fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}
