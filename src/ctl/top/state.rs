//! What is on the screen, and what each key does. No terminal and no daemon here.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::args::Sort;
use super::super::show::{self, Zone, cause, state as word};
use super::super::timeline;
use super::feed::{Order, Update};
use crate::control::protocol::{BlockRow, Stamp, Status, Target};

/// Seconds of the rates: as many as a wide screen has columns.
const SECONDS_MAX: usize = 200;

/// Events that are kept.
const EVENTS_MAX: usize = 200;

/// Longest filter.
const FILTER_MAX: usize = 60;

/// Rows that a page key moves by.
const PAGE: usize = 10;

/// A figure of each of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    last: Option<u64>,
    pub(super) seconds: VecDeque<u64>,
}

impl Rate {
    /// Takes the next value of a counter.
    fn take(&mut self, counter: u64) {
        if let Some(last) = self.last {
            // The counters of a daemon that was started again begin at 0.
            self.push(counter.checked_sub(last).unwrap_or(counter));
        }
        self.last = Some(counter);
    }

    fn push(&mut self, second: u64) {
        self.seconds.push_back(second);
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_front();
        }
    }
}

/// What lies over the screen.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Over {
    #[default]
    Nothing,
    Help,
    /// Lines, and the first of them that is shown.
    Text(Vec<String>, usize),
    /// A question, and what `y` orders.
    Sure(String, Order),
    /// The filter is typed.
    Filter,
}

pub(super) struct State {
    pub(super) zone: Zone,
    pub(super) colours: bool,
    pub(super) status: Option<Box<Status>>,
    /// Why there is no daemon.
    pub(super) gone: Option<String>,
    /// Packets dropped of each source, as the last list had it.
    packets: Option<HashMap<Target, u64>>,
    /// All rows, of `all`.
    rows: Vec<BlockRow>,
    pub(super) all: usize,
    /// Those that the filter selects, in order.
    pub(super) shown: Vec<BlockRow>,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) selected: usize,
    pub(super) probes: Rate,
    pub(super) dropped: Rate,
    pub(super) decisions: Rate,
    pub(super) events: VecDeque<String>,
    pub(super) over: Over,
    /// What came of the last order: text, and whether it was done.
    pub(super) message: Option<(String, bool)>,
}

impl State {
    pub(super) fn new(zone: Zone, colours: bool) -> Self {
        Self {
            zone,
            colours,
            status: None,
            gone: None,
            packets: None,
            rows: Vec::new(),
            all: 0,
            shown: Vec::new(),
            sort: Sort::Packets,
            filter: String::new(),
            selected: 0,
            probes: Rate::default(),
            dropped: Rate::default(),
            decisions: Rate::default(),
            events: VecDeque::new(),
            over: Over::Nothing,
            message: None,
        }
    }

    /// Takes news of the daemon.
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Status(status) => {
                self.gone = None;
                self.probes.take(status.probes);
                self.decisions.take(status.decisions.blocks);
                self.status = Some(status);
            }
            Update::Rows(rows, all) => {
                self.count_dropped(&rows);
                (self.rows, self.all) = (rows, all);
                self.arrange();
            }
            Update::Event(event) => {
                let mut line = Vec::new();
                // Writing to memory does not fail.
                let _ = show::event(&mut line, &event, None, &self.zone);
                self.events.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                if self.events.len() > EVENTS_MAX {
                    self.events.pop_front();
                }
            }
            Update::Shown(shown, geo, history) => {
                let mut text = Vec::new();
                let _ = show::shown(&mut text, &shown, geo.as_ref(), &self.zone);
                let _ = timeline::print(&mut text, &shown.probes, &history, &self.zone);
                let text = String::from_utf8_lossy(&text);
                self.over = Over::Text(text.lines().map(str::to_owned).collect(), 0);
            }
            Update::Done(Ok(text)) => self.message = Some((text, true)),
            Update::Done(Err(text)) => self.message = Some((text, false)),
            Update::Gone(why) => self.gone = Some(why),
        }
    }

    /// Adds what was dropped of each source since the list before: of one that is new, all.
    fn count_dropped(&mut self, rows: &[BlockRow]) {
        let packets = |row: &BlockRow| (row.address, row.packets.unwrap_or(0));
        let now: HashMap<Target, u64> = rows.iter().map(packets).collect();
        if let Some(before) = &self.packets {
            let of = |(address, packets): (&Target, &u64)| {
                packets.saturating_sub(before.get(address).copied().unwrap_or(0))
            };
            self.dropped.push(now.iter().map(of).sum());
        }
        self.packets = Some(now);
    }

    /// The selected row.
    pub(super) fn row(&self) -> Option<&BlockRow> {
        self.shown.get(self.selected)
    }

    /// Selects and sorts the rows; the selected one stays selected.
    fn arrange(&mut self) {
        let selected = self.row().map(|row| row.address);
        self.shown = self.rows.iter().filter(|row| matches(row, &self.filter)).cloned().collect();
        let never = Timestamp::MAX;
        match self.sort {
            Sort::Packets => self.shown.sort_by_key(|row| (Reverse(row.packets), row.address)),
            Sort::Since => {
                self.shown.sort_by_key(|row| (Reverse(row.since.map(|Stamp(at)| at)), row.address))
            }
            Sort::Until => {
                self.shown.sort_by_key(|row| (row.until.map_or(never, |Stamp(at)| at), row.address))
            }
            Sort::Address => self.shown.sort_by_key(|row| row.address),
        }
        let place = selected.and_then(|of| self.shown.iter().position(|row| row.address == of));
        self.selected = place.unwrap_or(self.selected).min(self.shown.len().saturating_sub(1));
    }

    /// Does what a key says; `false`: the screen is to be left.
    pub(super) fn key(&mut self, key: KeyEvent, orders: &Sender<Order>) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return !matches!(key.code, KeyCode::Char('c'));
        }
        match std::mem::take(&mut self.over) {
            Over::Nothing => return self.key_on_list(key.code, orders),
            Over::Help => {}
            Over::Text(lines, first) => match moved(key.code, first, lines.len()) {
                Some(first) => self.over = Over::Text(lines, first),
                None if matches!(key.code, KeyCode::Enter | KeyCode::Esc | KeyCode::Char(_)) => {}
                None => self.over = Over::Text(lines, first),
            },
            Over::Sure(_, order) => {
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    // Without its thread there is an error about it on the screen already.
                    let _ = orders.send(order);
                } else {
                    self.message = Some(("nothing was changed".to_owned(), true));
                }
            }
            Over::Filter => {
                match key.code {
                    KeyCode::Enter => return true,
                    KeyCode::Esc => {
                        self.filter.clear();
                        self.arrange();
                        return true;
                    }
                    KeyCode::Backspace => drop(self.filter.pop()),
                    KeyCode::Char(typed) if self.filter.len() < FILTER_MAX => {
                        self.filter.push(typed)
                    }
                    _ => {}
                }
                self.over = Over::Filter;
                self.arrange();
            }
        }
        true
    }

    fn key_on_list(&mut self, code: KeyCode, orders: &Sender<Order>) -> bool {
        self.message = None;
        let address = self.row().map(|row| row.address);
        if let Some(selected) = moved(code, self.selected, self.shown.len()) {
            self.selected = selected;
            return true;
        }
        match (code, address) {
            (KeyCode::Char('q'), _) => return false,
            (KeyCode::Esc, _) if self.filter.is_empty() => return false,
            (KeyCode::Esc, _) => {
                self.filter.clear();
                self.arrange();
            }
            (KeyCode::Char('?' | 'h') | KeyCode::F(1), _) => self.over = Over::Help,
            (KeyCode::Char('/'), _) => self.over = Over::Filter,
            (KeyCode::Char('s'), _) => {
                self.sort = match self.sort {
                    Sort::Packets => Sort::Since,
                    Sort::Since => Sort::Until,
                    Sort::Until => Sort::Address,
                    Sort::Address => Sort::Packets,
                };
                self.arrange();
                self.selected = 0;
            }
            (KeyCode::Enter, Some(address)) => {
                let _ = orders.send(Order::Show(address));
            }
            (KeyCode::Char('u'), Some(address)) => {
                self.over = Over::Sure(format!("Unblock {address}?"), Order::Unblock(address));
            }
            (KeyCode::Char('a'), Some(address)) => {
                let question = format!("Never block {address} from now on?");
                self.over = Over::Sure(question, Order::Allow(address));
            }
            _ => {}
        }
        true
    }
}

/// Where a key moves to in a list of this length; `None`: it does not move.
fn moved(code: KeyCode, place: usize, length: usize) -> Option<usize> {
    let last = length.saturating_sub(1);
    let place = match code {
        KeyCode::Up | KeyCode::Char('k') => place.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => place + 1,
        KeyCode::PageUp => place.saturating_sub(PAGE),
        KeyCode::PageDown => place + PAGE,
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => last,
        _ => return None,
    };
    Some(place.min(last))
}

/// Whether a filter selects a row: a network selects what is in it, a word what has it.
fn matches(row: &BlockRow, filter: &str) -> bool {
    if let Ok(net @ Target::Network(_)) = filter.parse::<Target>() {
        return net.network().contains(&row.address.network());
    }
    let filter = filter.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&filter);
    has(&row.address.to_string())
        || has(&row.reason)
        || has(word(row.state))
        || has(cause(row.cause))
        || row.scan.as_deref().is_some_and(has)
}
