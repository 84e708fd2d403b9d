//! The screen, drawn from its state.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap,
};

use super::super::args::Sort;
use super::super::health;
use super::super::screen::width;
use super::super::show::{cause, count, ends_in, number, state as word};
use super::state::{Over, Rate, State};
use crate::control::protocol::{BlockRow, State as Verdict, Status};
use crate::journal::format::{duration, printable};

const KEYS: &str = "Enter explain  u unblock  a allow  s sort  / filter  ? help  q quit";

const HELP: [&str; 16] = [
    "Up Down PgUp PgDn Home End   select a source",
    "Enter   explain it: what it probed, what counted, what was decided",
    "u       unblock it",
    "a       never block it from now on",
    "s       sort by packets, newest, next to end, address",
    "/       filter: a word of a row, or a network (10.0.0.0/8)",
    "Esc     drop the filter, or quit        q  quit",
    "",
    "blocked   all of its packets are dropped",
    "slowed    its probes are dropped, its new connections wait for a",
    "          second; its address is not proven, it may be forged",
    "proven    its address is not forged: it got our answers",
    "DROPPED   packets dropped since it was blocked or slowed",
    "",
    "Unblocking and allowing need root.",
    "Any key closes this.",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame, state: &mut State) {
    let area = frame.area();
    let events = (area.height / 4).clamp(5, 14);
    let parts = [
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Min(4),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [head, rates, list, events, foot] = Layout::vertical(parts).areas(area);
    draw_head(frame, state, head);
    draw_rates(frame, state, rates);
    draw_list(frame, state, list);
    draw_events(frame, state, events);
    draw_foot(frame, state, foot);
    match &state.over {
        Over::Help => over(frame, "Help", &HELP.map(str::to_owned), 0),
        Over::Text(lines, first) => over(frame, "Up and Down scroll, Enter closes", lines, *first),
        Over::Nothing | Over::Sure(..) | Over::Filter => {}
    }
}

/// A style in a colour, where there are colours.
fn coloured(state: &State, colour: Color) -> Style {
    if state.colours { Style::new().fg(colour) } else { Style::new() }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Whether this host is protected, and why not; what is watched.
fn draw_head(frame: &mut Frame, state: &State, area: Rect) {
    let (is_good, verdict, why) = verdict(state);
    let colour = if is_good { Color::Green } else { Color::Red };
    let style = coloured(state, colour).add_modifier(Modifier::BOLD | Modifier::REVERSED);
    let version = state.status.as_ref().map_or("", |status| status.version.as_str());
    let first = Line::from(vec![
        Span::styled(format!(" {verdict} "), style),
        Span::raw(format!(" {}", printable(&why))),
    ]);
    let second = state.status.as_deref().map_or_else(String::new, |status| {
        let up = duration(Duration::from_secs(status.uptime));
        format!("PortSentry {} up {up}; {}", printable(version), watched(status))
    });
    frame.render_widget(Paragraph::new(vec![first, Line::raw(second)]), area);
}

/// Whether this host is protected, a word for it, and why.
fn verdict(state: &State) -> (bool, &'static str, String) {
    let Some(status) = state.status.as_deref().filter(|_| state.gone.is_none()) else {
        return match &state.gone {
            Some(why) => (false, "NO DAEMON", format!("{why}; trying again")),
            None => (false, "CONNECTING", String::new()),
        };
    };
    let problems = health::texts(status);
    if health::is_protecting(status) {
        let fine = "scans are blocked".to_owned();
        (true, "PROTECTED", if problems.is_empty() { fine } else { problems.join("; ") })
    } else {
        (false, "NOT PROTECTED", problems.join("; "))
    }
}

fn watched(status: &Status) -> String {
    let mut parts: Vec<String> = status
        .watching
        .iter()
        .map(|of| format!("{} {}", of.transport, count(of.ports.into(), "port")))
        .collect();
    if parts.is_empty() {
        parts.push("watches nothing".to_owned());
    }
    let missing = [(status.lost, "lost"), (status.shed, "shed in floods")];
    for (of, what) in missing.into_iter().filter(|(of, _)| *of > 0) {
        parts.push(format!("{} {what}", count(of, "packet")));
    }
    parts.join(", ")
}

fn draw_rates(frame: &mut Frame, state: &State, area: Rect) {
    let thirds = [Constraint::Ratio(1, 3); 3];
    let rates = [
        ("Probes/s", &state.probes, Color::Blue),
        ("Dropped/s", &state.dropped, Color::Yellow),
        ("Blocks/s", &state.decisions, Color::Red),
    ];
    let areas: [Rect; 3] = Layout::horizontal(thirds).spacing(1).areas(area);
    for ((name, rate, colour), area) in rates.into_iter().zip(areas) {
        draw_rate(frame, state, name, rate, colour, area);
    }
}

fn draw_rate(frame: &mut Frame, state: &State, name: &str, rate: &Rate, colour: Color, area: Rect) {
    let now = rate.seconds.back().map_or_else(|| "-".to_owned(), u64::to_string);
    let room = usize::from(area.width.saturating_sub(2));
    let skipped = rate.seconds.len().saturating_sub(room);
    let seconds: Vec<u64> = rate.seconds.iter().skip(skipped).copied().collect();
    let most = seconds.iter().max().copied().unwrap_or(0);
    let block = Block::bordered()
        .title(format!("{name} {now}"))
        .title_bottom(Line::raw(format!("at most {most}")).right_aligned());
    let bars = Sparkline::default().block(block).style(coloured(state, colour)).max(most.max(1));
    frame.render_widget(bars.data(seconds), area);
}

/// The blocked and slowed sources.
fn draw_list(frame: &mut Frame, state: &mut State, area: Rect) {
    let sort = match state.sort {
        Sort::Packets => "most packets",
        Sort::Since => "newest",
        Sort::Until => "next to end",
        Sort::Address => "address",
    };
    let mut title = format!("{} blocked or slowed, by {sort}", count(state.all as u64, "source"));
    if !state.filter.is_empty() {
        let filter = printable(&state.filter);
        title.push_str(&format!("; {} with \"{filter}\"", state.shown.len()));
    }
    let block = Block::new().borders(Borders::TOP).title(title);
    if state.shown.is_empty() {
        let text = match (&state.status, state.filter.is_empty()) {
            (None, _) => "",
            (_, true) => "Nothing is blocked or slowed.",
            (_, false) => "No row has that; Esc drops the filter.",
        };
        frame.render_widget(Paragraph::new(text).block(block), area);
        return;
    }
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let from = state.selected.saturating_sub(room.saturating_sub(1));
    let visible: Vec<&BlockRow> = state.shown.iter().skip(from).take(room).collect();
    let addresses = visible.iter().map(|row| width(&row.address.to_string())).max().unwrap_or(0);
    let address = u16::try_from(addresses).unwrap_or(u16::MAX).clamp(7, 43);
    let widths = [
        Constraint::Length(address),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Min(10),
    ];
    let header = ["ADDRESS", "STATE", "CAUSE", "ENDS IN", "  DROPPED", "WHY"];
    let rows = visible.iter().map(|row| {
        let colour = match row.state {
            Verdict::Blocked => Color::Red,
            Verdict::Slowed => Color::Yellow,
            Verdict::Reported => Color::Reset,
        };
        Row::new([
            Cell::from(row.address.to_string()),
            Cell::from(Span::styled(word(row.state), coloured(state, colour))),
            Cell::from(cause(row.cause)),
            Cell::from(ends_in(row.expires_in)),
            Cell::from(format!("{:>9}", number(row.packets))),
            Cell::from(printable(&row.reason).into_owned()),
        ])
    });
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut place = TableState::new().with_selected(Some(state.selected - from));
    frame.render_stateful_widget(table, area, &mut place);
}

/// The last events, the newest last.
fn draw_events(frame: &mut Frame, state: &State, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let skipped = state.events.len().saturating_sub(room);
    let lines: Vec<Line> =
        state.events.iter().skip(skipped).map(|line| Line::raw(&**line)).collect();
    let block = Block::new().borders(Borders::TOP).title("Events since this screen was opened");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_foot(frame: &mut Frame, state: &State, area: Rect) {
    let line = match (&state.over, &state.message) {
        (Over::Sure(question, _), _) => Line::styled(format!("{question} [y/N]"), bold()),
        (Over::Filter, _) => {
            Line::styled(format!("Filter: {}_  (Enter keeps, Esc drops it)", state.filter), bold())
        }
        (_, Some((text, done))) => {
            let colour = if *done { Color::Green } else { Color::Red };
            Line::styled(printable(text).into_owned(), coloured(state, colour))
        }
        _ => Line::raw(KEYS),
    };
    frame.render_widget(line, area);
}

/// Lines over the screen.
fn over(frame: &mut Frame, title: &str, lines: &[String], first: usize) {
    let area = frame.area();
    let widest = lines.iter().map(|line| width(line)).max().unwrap_or(0).max(20) + 4;
    let size = |wanted: usize, room: u16| u16::try_from(wanted).unwrap_or(u16::MAX).min(room);
    let across = size(widest, area.width.saturating_sub(4));
    let inner = usize::from(across.saturating_sub(4)).max(1);
    // Long lines continue below.
    let wrapped: usize = lines.iter().map(|line| width(line).div_ceil(inner).max(1)).sum();
    let down = size(wrapped + 2, area.height.saturating_sub(2));
    let [area] = Layout::horizontal([Constraint::Length(across)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [area] = Layout::vertical([Constraint::Length(down)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let lines: Vec<Line> = lines.iter().skip(first).map(|line| Line::raw(line.as_str())).collect();
    let block = Block::bordered()
        .title(format!(" {title} "))
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}
