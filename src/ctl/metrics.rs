//! `portsentryctl metrics`: the daemon's status as metrics, in OpenMetrics, or in Prometheus' older
//! text format, which is all that node_exporter's textfile collector reads.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::failure::Failure;
use super::health::is_protecting;
use super::status;
use crate::control::protocol::{RulesState, Status};
use crate::probe::ScanKind;
use crate::sys::replace;

/// The labels of a sample.
type Labels<const N: usize> = [(&'static str, String); N];

/// The form of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' older text format.
    Prometheus,
}

/// The metrics of a status; without one, which the daemon did not give, they say that it is not up.
pub(super) fn text(form: Form, status: Option<&Status>) -> io::Result<String> {
    let mut written = String::new();
    let registry = registry(status);
    match form {
        Form::OpenMetrics => text::encode(&mut written, &registry),
        Form::Prometheus => prometheus_text::encode(&mut written, &registry),
    }
    .map_err(not_encoded)?;
    Ok(written)
}

/// Prints the metrics as OpenMetrics.
pub(super) fn print(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    out.write_all(text(Form::OpenMetrics, Some(status))?.as_bytes())
}

/// Replaces `path` by the metrics in Prometheus' text format.
pub(super) fn write(path: &Path, status: Option<&Status>) -> Result<(), Failure> {
    let written = text(Form::Prometheus, status)?;
    replace::write(path, written.as_bytes(), 0o644).map_err(|error| {
        Failure::File(
            status::SOFTWARE,
            format!("{} cannot be written: {error}", path.display()),
            "name a file in a directory that you may write to".to_owned(),
        )
    })
}

fn not_encoded(error: fmt::Error) -> io::Error {
    io::Error::other(error)
}

/// Collects metrics.
struct Metrics(Registry);

impl Metrics {
    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, gauge(value));
    }

    fn gauge_in(&mut self, name: &str, unit: Unit, help: &str, value: u64) {
        self.0.register_with_unit(name, help, unit, gauge(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, counter(value));
    }

    /// A gauge for each value of a label.
    fn gauges<L: ToString>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) {
        let family = Family::<Labels<1>, Gauge<i64>>::default();
        for (of, value) in samples {
            family.get_or_create(&[(label, of.to_string())]).set(signed(value));
        }
        self.add(name, help, family);
    }

    /// A counter for each value of a label.
    fn counters<L: ToString>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) {
        let family = Family::<Labels<1>, Counter>::default();
        for (of, value) in samples {
            family.get_or_create(&[(label, of.to_string())]).inc_by(value);
        }
        self.add(name, help, family);
    }
}

fn gauge(value: u64) -> Gauge<i64> {
    let gauge = Gauge::default();
    gauge.set(signed(value));
    gauge
}

fn counter(value: u64) -> Counter {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Of words of which one applies: 1 for this, 0 for the others.
fn one_of<const N: usize>(words: [&'static str; N], word: &str) -> [(&'static str, u64); N] {
    words.map(|of| (of, (of == word).into()))
}

/// The metrics of a status.
fn registry(status: Option<&Status>) -> Registry {
    let mut metrics = Metrics(Registry::with_prefix("portsentry"));
    metrics.gauge("up", "Whether the daemon answers", status.is_some().into());
    if let Some(status) = status {
        protection(&mut metrics, status);
        blocks(&mut metrics, status);
        packets(&mut metrics, status);
        responses(&mut metrics, status);
        stores(&mut metrics, status);
    }
    metrics.0
}

/// What is in force.
fn protection(metrics: &mut Metrics, status: &Status) {
    let build = Family::<Labels<1>, Gauge<i64>>::default();
    build.get_or_create(&[("version", status.version.clone())]).set(1);
    metrics.add("build_info", "The version of the daemon", build);
    metrics.gauge_in("uptime", Unit::Seconds, "Time since the start of the daemon", status.uptime);
    metrics.gauge(
        "protecting",
        "Whether scans are blocked: detection is on, the mode is enforce, something is watched, and the rules are in place",
        is_protecting(status).into(),
    );
    metrics.gauges(
        "mode",
        "The mode in force",
        "mode",
        one_of(["enforce", "observe"], &status.mode),
    );
    metrics.gauges(
        "detection",
        "Whether detection is on, off or paused",
        "state",
        one_of(["on", "off", "paused"], &status.detection),
    );
    if status.rules != RulesState::Unknown {
        metrics.gauge(
            "rules_in_place",
            "Whether the rules in the kernel are those in force",
            (status.rules == RulesState::InPlace).into(),
        );
    }
    let watched = Family::<Labels<2>, Gauge<i64>>::default();
    for row in &status.watching {
        let labels = [("transport", row.transport.clone()), ("mode", row.mode.clone())];
        watched.get_or_create(&labels).set(row.ports.into());
    }
    metrics.add("watched_ports", "Ports that are watched", watched);
    metrics.counter(
        "table_repairs",
        "Repairs after another program changed the table",
        status.repairs.count,
    );
    metrics.gauge(
        "table_contested",
        "Whether another program changes the table again and again",
        status.repairs.fighting.into(),
    );
    if let Some(loaded) = status.loaded {
        metrics.gauge(
            "config_last_load_successful",
            "Whether the configuration that was read last is in force",
            loaded.ok.into(),
        );
        metrics.gauge_in(
            "config_last_load_timestamp",
            Unit::Seconds,
            "When the configuration was read last",
            u64::try_from(loaded.at.0.as_second()).unwrap_or_default(),
        );
    }
    metrics.gauge("warnings", "Warnings in the status", status.warnings.len() as u64);
}

/// What was decided.
fn blocks(metrics: &mut Metrics, status: &Status) {
    metrics.gauge("blocks", "Blocks in force", status.blocked);
    if let Some(causes) = status.causes {
        metrics.gauges(
            "blocks_by_cause",
            "Blocks in force by their cause; absent above a thousand blocks and in observe mode",
            "cause",
            [
                ("proven", causes.proven),
                ("unproven", causes.unproven),
                ("order", causes.order),
                ("foreign", causes.foreign),
            ],
        );
    }
    // Bounded: see engine::LISTS_MAX.
    metrics.gauges(
        "list_blocks",
        "Blocks in force of each named list",
        "list",
        status.lists.iter().map(|row| (row.name.as_str(), row.blocks)),
    );
    metrics.gauge("blocks_limit", "The most blocks that there may be", status.blocked_most);
    metrics.gauge(
        "blocks_not_in_force",
        "Blocks that the kernel refused, and that are tried again",
        status.not_in_force,
    );
    metrics.gauge("slowed_sources", "Slowed sources", status.slowed);
    metrics.gauge("sources", "Sources that are remembered", status.sources);
    metrics.gauge("allowed", "Addresses and networks that are never blocked", status.allowed);
    metrics.gauge(
        "allow_names_failing",
        "DNS names in allow whose last lookup failed: the addresses that they had stay exempt",
        status.allowed_names.iter().filter(|name| name.error.is_some()).count() as u64,
    );
    metrics.gauge("administrators", "Administrators who are remembered", status.admins);
    let decisions = &status.decisions;
    metrics.counters(
        "block_changes",
        "Blocks that began, got a new timeout, ended, or were refused by the kernel",
        "change",
        [
            ("began", decisions.blocks),
            ("renewed", decisions.renewals),
            ("ended", decisions.ended),
            ("refused", decisions.refused),
        ],
    );
    // The budgets are there from the start: a rate over a counter that appears is none.
    let not_blocked = |reason: &str| decisions.not_blocked.get(reason).copied().unwrap_or(0);
    let budgets = ["per_minute", "total"].map(|reason| (reason, not_blocked(reason)));
    let others = decisions.not_blocked.iter().map(|(reason, count)| (reason.as_str(), *count));
    let others = others.filter(|(reason, _)| !budgets.iter().any(|(budget, _)| budget == reason));
    metrics.counters(
        "not_blocked_probes",
        "Probes past the trigger that led to no block, by reason",
        "reason",
        budgets.into_iter().chain(others),
    );
    metrics.counter("probes", "Probes", status.probes);
    let by_scan = ScanKind::ALL.map(|kind| {
        let count = status.by_scan.get(kind.name()).copied().unwrap_or(0);
        (kind.name(), count)
    });
    metrics.counters("scan_probes", "Probes by the kind of scan", "scan", by_scan);
}

/// What came from the kernel, and what was lost.
fn packets(metrics: &mut Metrics, status: &Status) {
    let intake = status.intake;
    metrics.counter("packets_logged", "Packets that the kernel logged", intake.logged);
    metrics.counter("packets_judged", "Packets that were evaluated", intake.judged);
    metrics.counter(
        "packets_passed_over",
        "Packets that are no probes or cannot be parsed",
        intake.passed_over,
    );
    let reflex = status.reflex.unwrap_or_default();
    metrics.counters(
        "packets_lost",
        "Packets that were not evaluated: the receive buffer was full (kernel), given up in a flood by the daemon (shed) or by the rules (rules)",
        "cause",
        [("kernel", status.lost), ("shed", status.shed), ("rules", reflex.shed)],
    );
    metrics.counter(
        "capture_overruns",
        "Messages for which the receive buffer had no room",
        intake.overruns,
    );
    metrics.counter(
        "capture_malformed",
        "Messages of the kernel that could not be decoded",
        intake.malformed,
    );
    metrics.gauge(
        "capture_batch_packets",
        "Packets that the kernel collects before it wakes the daemon",
        intake.batch.into(),
    );
    if let Some(bytes) = intake.receive_buffer {
        metrics.gauge_in("capture_receive_buffer", Unit::Bytes, "The receive buffer", bytes);
    }
    if let Some(queues) = status.queues {
        metrics.gauges(
            "queue_packets",
            "Packets that wait in the kernel",
            "queue",
            [("probes", queues.probes), ("connections", queues.connections)].map(wide),
        );
        metrics.gauges(
            "queue_limit_packets",
            "Packets that may wait in the kernel",
            "queue",
            [("probes", queues.probes_length), ("connections", queues.connections_length)]
                .map(wide),
        );
        metrics.counters(
            "queue_connections",
            "New connections of suspects, by verdict",
            "verdict",
            [("passed", queues.passed), ("stopped", queues.stopped)],
        );
    }
    if let Some(tracked) = status.tracked {
        metrics.gauge(
            "conntrack_connections",
            "Connections that the kernel tracks",
            tracked.connections,
        );
        metrics.gauge(
            "conntrack_limit",
            "Connections that the kernel can track at the most",
            tracked.most,
        );
    }
    if status.reflex.is_some() {
        metrics.counters(
            "reflex_holds",
            "Sources that the rules held, and whether the daemon was told",
            "logged",
            [("yes", reflex.holds), ("no", reflex.untold_holds)],
        );
        metrics.counter(
            "reflex_releases",
            "Held sources that the daemon released",
            reflex.released,
        );
        metrics.counter(
            "reflex_dropped_packets",
            "Packets of held sources that the rules dropped",
            reflex.dropped,
        );
        metrics.counter(
            "reflex_unlogged_probes",
            "Probes that the rules counted and did not log",
            reflex.untold,
        );
        metrics.counter(
            "reflex_no_room_probes",
            "Probes that found a set of the rules full",
            reflex.no_room,
        );
        if let (Some(elements), Some(size)) = (reflex.elements, reflex.size) {
            metrics.gauge(
                "reflex_elements",
                "Elements in the fullest set of the rules",
                elements.into(),
            );
            metrics.gauge("reflex_elements_limit", "The size of that set", size.into());
        }
    }
    let decoy = status.decoy;
    metrics.counters(
        "decoy_connections",
        "Connections to decoys: completed, closed at once, or never completed",
        "result",
        [
            ("completed", decoy.connections),
            ("refused", decoy.refused),
            ("half_open", decoy.half_open),
        ],
    );
    metrics.counters(
        "decoy_answers",
        "Banners sent, and datagrams without one because of the rate limit",
        "result",
        [("banner", decoy.banners), ("unanswered", decoy.unanswered)],
    );
    metrics.gauges(
        "decoy_open_connections",
        "Connections that decoys hold, and handshakes in progress",
        "state",
        [("held", decoy.held), ("waiting", decoy.waiting)],
    );
}

fn wide((label, value): (&'static str, u32)) -> (&'static str, u64) {
    (label, value.into())
}

/// What is done beside the blocks.
fn responses(metrics: &mut Metrics, status: &Status) {
    metrics.gauge("helper_up", "Whether the helper process runs", status.helper.into());
    let responses = status.responses;
    metrics.counters(
        "commands",
        "Commands of respond.command by result; dropped ones were not run",
        "result",
        [
            ("done", responses.commands.saturating_sub(responses.failed)),
            ("failed", responses.failed),
            ("dropped", responses.dropped),
        ],
    );
    metrics.counters(
        "log_lines_missing",
        "Log lines that the rate limit held back, or that could not be written",
        "cause",
        [("held_back", status.held_back), ("unwritten", status.unwritten)],
    );
}

/// What is on the disk.
fn stores(metrics: &mut Metrics, status: &Status) {
    let store = &status.store;
    metrics.gauge(
        "store_failing",
        "Whether the state store cannot be written: a reboot would forget what is not in it",
        (store.state == "failing").into(),
    );
    metrics.gauges(
        "store_rows",
        "Rows of the state store",
        "kind",
        [("blocks", store.blocks), ("offenders", store.offenders), ("sources", store.sources)],
    );
    if let Some(age) = store.age {
        metrics.gauge_in("store_age", Unit::Seconds, "Time since it was written last", age);
    }
    let events = &status.events;
    metrics.gauges(
        "event_store",
        "The state of the event store",
        "state",
        one_of(["ok", "failing", "off"], &events.state),
    );
    metrics.gauge("event_store_rows", "Events that are stored", events.rows);
    metrics.gauge_in("event_store", Unit::Bytes, "The size of the event store", events.bytes);
    metrics.counter("events_lost", "Events that could not be stored", events.lost);
}
