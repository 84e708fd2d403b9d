use std::sync::mpsc::channel;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::super::show::Zone;
use super::feed::{Order, Update};
use super::state::State;
use super::*;
use crate::control::protocol::{BlockRow, Reflex, RulesState, Status, Watching};

fn row(n: u8) -> BlockRow {
    serde_json::from_value(serde_json::json!({
        "address": format!("192.0.2.{n}"), "state": "slowed", "cause": "unproven", "proven": false,
        "reason": format!("syn scan {n}\u{1b}[2J\u{202e}"), "scan": "syn", "since": null, "expires_in": 60, "packets": n,
    }))
    .unwrap()
}

fn status(probes: u64) -> Box<Status> {
    Box::new(Status {
        mode: "enforce".into(),
        detection: "on".into(),
        rules: RulesState::InPlace,
        watching: vec![Watching {
            transport: "tcp".into(),
            mode: "advanced".into(),
            ports: 7,
            ranges: "1-7".into(),
        }],
        probes,
        reflex: Some(Reflex::default()),
        ..Status::default()
    })
}

fn screen(state: &mut State, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::draw(frame, state)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn whether_the_host_is_protected_is_the_first_word() {
    let mut state = State::new(Zone::utc(), true);
    assert!(screen(&mut state, 80, 24).contains(" CONNECTING "));
    state.take(Update::Status(status(0)));
    assert!(screen(&mut state, 80, 24).contains(" PROTECTED  scans are blocked"));
    let observing = Status { mode: "observe".into(), ..*status(0) };
    state.take(Update::Status(Box::new(observing)));
    assert!(screen(&mut state, 80, 24).contains(" NOT PROTECTED  the mode is observe"));
    state.take(Update::Gone("no socket\u{7}".into()));
    let shown = screen(&mut state, 80, 24);
    assert!(shown.contains(" NO DAEMON  no socket\\u{7}; trying again"), "{shown}");
}

#[test]
fn rates_are_differences_also_over_a_restart() {
    let mut state = State::new(Zone::utc(), true);
    for probes in [100, 130, 130, 8] {
        state.take(Update::Status(status(probes)));
    }
    assert_eq!(state.probes.seconds, [30, 0, 8]);
    assert!(screen(&mut state, 80, 24).contains("Probes/s 8"));
    // One source ends, one is new, one dropped two more.
    for packets in [vec![(1, 50), (2, 5)], vec![(2, 7), (3, 4)]] {
        let rows =
            packets.into_iter().map(|(n, packets)| BlockRow { packets: Some(packets), ..row(n) });
        state.take(Update::Rows(rows.collect(), 2));
    }
    assert_eq!(state.dropped.seconds, [6]);
}

#[test]
fn the_selected_row_stays_selected_and_seen() {
    let mut state = State::new(Zone::utc(), true);
    state.take(Update::Status(status(0)));
    state.take(Update::Rows((1..=40).map(row).collect(), 40));
    let (orders, ordered) = channel();
    for _ in 0..30 {
        assert!(state.key(KeyEvent::from(KeyCode::Down), &orders));
    }
    // The most packets are first: 40, 39 ...
    assert!(screen(&mut state, 80, 24).contains("192.0.2.10 "));
    state.take(Update::Rows((1..=60).map(row).collect(), 60));
    let shown = screen(&mut state, 80, 24);
    assert!(shown.contains("192.0.2.10 ") && shown.contains("\\u{1b}[2J\\u{202e}"), "{shown}");
    state.key(KeyEvent::from(KeyCode::Enter), &orders);
    assert_eq!(ordered.try_recv(), Ok(Order::Show("192.0.2.10".parse().unwrap())));
    // No key changes anything without `y`.
    for key in ['u', 'n', 'a', 'x', 'u', ' '] {
        assert!(state.key(KeyEvent::from(KeyCode::Char(key)), &orders));
    }
    assert!(ordered.try_recv().is_err());
}

#[test]
fn every_size_is_drawn() {
    let mut state = State::new(Zone::utc(), false);
    state.take(Update::Status(status(0)));
    state.take(Update::Rows((1..=40).map(row).collect(), 40));
    for (columns, rows) in [(1, 1), (10, 3), (40, 10), (80, 24), (300, 100)] {
        let (orders, _) = channel();
        for key in ['?', ' ', '/', 'x'] {
            screen(&mut state, columns, rows);
            state.key(KeyEvent::from(KeyCode::Char(key)), &orders);
        }
        state.key(KeyEvent::from(KeyCode::Esc), &orders);
    }
}
