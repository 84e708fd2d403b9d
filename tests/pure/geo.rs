//! Countries and autonomous systems from local databases: in lists, the history, reports and events,
//! and files that are missing, damaged or of another form.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::control::fake::{Daemon, FakeHandler};
use crate::support::mmdb::Value::{List, Map, Number, Switch, Text};
use crate::support::mmdb::{Value, file};
use crate::support::{self, schema};
use portsentry::control::GeoFiles;
use portsentry::engine::{Report, SlowEnding, Source};
use portsentry::journal::Notice;

const BAD_NAME: &str = "Example\u{1b}[2J <b>\u{202e}, Networks";

/// `country` as MaxMind and DB-IP have it, with what else is there.
fn country(code: &'static str) -> Value {
    let names = Map(vec![("de", Text("Land")), ("en", Text("Country"))]);
    let country = vec![
        ("geoname_id", Number(7)),
        ("is_in_european_union", Switch(true)),
        ("iso_code", Text(code)),
        ("names", names),
    ];
    Map(vec![
        ("city", Map(vec![("names", Map(vec![("en", Text("Town"))]))])),
        ("country", Map(country)),
        ("registered_country", Map(vec![("iso_code", Text("FR"))])),
        ("subdivisions", List(vec![Map(vec![("iso_code", Text("BE"))])])),
    ])
}

fn system(number: u32, name: &'static str) -> Value {
    let name = ("autonomous_system_organization", Text(name));
    Map(vec![("autonomous_system_number", Number(number)), name])
}

fn flat(country: (&'static str, &'static str), asn: &'static str, name: &'static str) -> Value {
    Map(vec![
        ("as_name", Text(name)),
        ("asn", Text(asn)),
        (country.0, Text(country.1)),
        ("country_name", Text("Germany")),
    ])
}

fn countries(bits: u32) -> Vec<u8> {
    let places = [
        ("10.77.0.0/16", country("DE")),
        ("192.0.2.0/25", country("CN")),
        ("192.0.2.128/25", country("CN")),
        ("203.0.113.0/24", country("NL")),
        ("198.51.100.0/24", country("BR")),
        ("2001:db8::/32", country("US")),
    ];
    file(bits, 6, &places)
}

fn systems(bits: u32) -> Vec<u8> {
    let of = [
        ("10.77.1.0/24", system(64_496, BAD_NAME)),
        ("203.0.113.0/24", system(64_497, "Research Scanners")),
        ("2001:db8::/48", system(0, "")),
    ];
    file(bits, 6, &of)
}

/// Files of the usual form.
pub fn files() -> Files {
    Files::new(&countries(24), &systems(28))
}

/// The page of a report with places.
pub fn page(week: &str) -> String {
    let files = files();
    let handler = FakeHandler { events: Some(2000), geo: files.both(), ..FakeHandler::default() };
    let (code, page, err) = Daemon::start(handler, "").ctl(&format!("report {week} --html -"));
    assert_eq!((code, err.as_str()), (0, ""));
    page
}

/// A directory with files, of which the first two are configured.
pub struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(country: &[u8], asn: &[u8]) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(files.path("country"), country).unwrap();
        std::fs::write(files.path("asn"), asn).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn both(&self) -> GeoFiles {
        GeoFiles { country: Some(self.path("country")), asn: Some(self.path("asn")) }
    }

    fn daemon(&self) -> Daemon {
        Daemon::start(FakeHandler { geo: self.both(), ..FakeHandler::default() }, "")
    }
}

fn read(daemon: &Daemon, line: &str) -> Json {
    let (code, out, err) = daemon.ctl(&format!("--json {line}"));
    assert_eq!((code, err.as_str()), (0, ""), "{line}");
    let document = serde_json::from_str(&out).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    schema::check(schema::of(&words).unwrap(), &document);
    document
}

#[test]
fn each_form_of_a_file_gives_country_number_and_name() {
    let known = json!({"country": "DE", "asn": 64496, "as_name": "Example"});
    let nested = |bits, version| file(bits, version, &[("10.77.0.0/16", country("DE"))]);
    let maxmind =
        |bits, version| file(bits, version, &[("10.77.1.1/32", system(64_496, "Example"))]);
    let one = |record: Value| file(28, 6, &[("10.0.0.0/8", record)]);
    let nothing = || file(24, 6, &[]);
    let rows = [
        ("24 bits", nested(24, 6), maxmind(24, 6), known.clone()),
        ("28 bits", nested(28, 6), maxmind(28, 6), known.clone()),
        ("32 bits", nested(32, 6), maxmind(32, 6), known.clone()),
        ("IPv4 alone", nested(24, 4), maxmind(28, 4), known.clone()),
        ("flat", one(flat(("country", "DE"), "AS64496", "Example")), nothing(), known.clone()),
        ("flat, both", nothing(), one(flat(("country_code", "de"), "64496", "Example")), known),
        (
            "a name of a country is no code",
            one(flat(("country", "Germany"), "AS0", " ")),
            nothing(),
            Json::Null,
        ),
        (
            "a country alone",
            nested(24, 6),
            one(Map(vec![("asn", List(Vec::new())), ("as_name", Switch(true))])),
            json!({"country": "DE", "asn": null, "as_name": null}),
        ),
        (
            "each file is asked first for what its key names",
            one(flat(("country", "DE"), "AS1", "Other")),
            one(flat(("country", "AT"), "AS2", "Another")),
            json!({"country": "DE", "asn": 2, "as_name": "Another"}),
        ),
    ];
    for (name, country, asn, wanted) in rows {
        let files = Files::new(&country, &asn);
        let found = read(&files.daemon(), "show 10.77.1.1");
        assert_eq!(found["geo"], wanted, "{name}");
    }
}

#[test]
fn lists_show_where_a_source_is_and_select_by_it() {
    let files = files();
    let daemon = files.daemon();
    let rows = read(&daemon, "list");
    let place = |rows: &Json, address: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["address"] == address).unwrap().get("geo").cloned()
    };
    let us = json!({"country": "US", "asn": null, "as_name": null});
    assert_eq!(place(&rows, "2001:db8:1::/64"), Some(us));
    // Its halves have records of their own.
    assert_eq!(place(&rows, "192.0.2.0/24"), None);
    let (_, text, _) = daemon.ctl("list");
    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[header.len() - 3..], ["COUNTRY", "AS", "REASON"]);
    let line = text.lines().find(|line| line.starts_with("10.77.1.1")).unwrap();
    assert!(line.contains("  DE       AS64496 Example\\u{1b}[2J <b>\\…  syn scan"), "{line}");
    for (options, wanted) in [
        ("--country de,US", vec!["10.77.1.1", "2001:db8:1::/64"]),
        ("--country DE --asn AS64496,1", vec!["10.77.1.1"]),
        ("--country US --asn 64496", vec![]),
        ("--country US,DE --limit 1", vec!["10.77.1.1"]),
        ("--limit 1", vec!["10.77.1.1"]),
    ] {
        let rows = read(&daemon, &format!("list {options}"));
        let found: Vec<&str> =
            rows.as_array().unwrap().iter().map(|row| row["address"].as_str().unwrap()).collect();
        assert_eq!(found, wanted, "{options}");
    }
    let would_be = read(&daemon, "list --would-be");
    assert_eq!(place(&would_be, "10.77.1.1").unwrap()["country"], "DE");
    let would_be = read(&daemon, "list --would-be --country DE");
    assert_eq!(would_be.as_array().unwrap().len(), 1);
    assert!(daemon.ctl("list --would-be").1.contains("  DE       AS64496 Example"));
    // Without a database there is no column, and no selection that finds nothing.
    let plain = Daemon::start(FakeHandler::default(), "");
    assert!(!plain.ctl("list").1.contains("COUNTRY"));
    for command in ["list --country DE", "history --asn 1"] {
        let (code, out, err) = plain.ctl(command);
        assert_eq!((code, out.as_str()), (64, ""), "{command}");
        assert!(err.contains("geo: { country: FILE"), "{err}");
    }
}

#[test]
fn show_history_and_their_json_say_where_a_source_is() {
    let files = files();
    let daemon = files.daemon();
    let (_, text, _) = daemon.ctl("show 10.77.1.1");
    let escaped = "Example\\u{1b}[2J <b>\\u{202e}, Networks";
    assert!(text.contains(&format!("  located      DE, AS64496 {escaped}\n")), "{text}");
    let wanted = json!({"country": "DE", "asn": 64496, "as_name": BAD_NAME});
    assert_eq!(read(&daemon, "show 10.77.1.1")["history"][0]["geo"], wanted);
    let rows = read(&daemon, "history");
    assert_eq!(rows[0]["geo"], wanted);
    let us = read(&daemon, "history --country us");
    assert_eq!(us.as_array().unwrap().len(), 1);
    assert_eq!(us[0]["address"], "2001:db8::/64");
    let (_, text, _) = daemon.ctl("history --asn 64496");
    let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[4..], ["NAME", "COUNTRY", "AS", "END", "WHY"]);
    let (_, csv, _) = daemon.ctl("history --csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].ends_with(",details,country,asn,as_name"), "{}", lines[0]);
    assert!(lines[1].ends_with(&format!(",DE,64496,\"{escaped}\"")), "{}", lines[1]);
    assert!(lines[2].ends_with(",US,,"), "{}", lines[2]);
    let plain = Daemon::start(FakeHandler::default(), "");
    assert!(plain.ctl("history --csv").1.lines().nth(1).unwrap().ends_with(",,,"));
}

#[test]
fn a_report_counts_sources_by_country_and_autonomous_system() {
    let files = files();
    let handler = FakeHandler { events: Some(2000), geo: files.both(), ..FakeHandler::default() };
    let daemon = Daemon::start(handler, "");
    let week = "report --since 2026-11-20T00:00Z --until 2026-11-26T23:59:59Z";
    let figures = read(&daemon, week);
    let mut wanted =
        std::collections::BTreeMap::<&str, (std::collections::BTreeSet<String>, u64)>::new();
    for row in
        (0..2000).map(|n| crate::control::fake::made(n, 2000)).filter(|row| row.kind == "scan")
    {
        let address = row.address.unwrap().to_string();
        let code = match address.split(['.', ':']).next().unwrap() {
            "203" => "NL",
            "198" => "BR",
            "2001" => "US",
            _ => continue,
        };
        let of = wanted.entry(code).or_default();
        of.0.insert(address);
        of.1 += 1;
    }
    let rows = figures["countries"]["rows"].as_array().unwrap();
    for (code, (sources, scans)) in &wanted {
        let row = rows.iter().find(|row| row["country"] == *code).unwrap();
        assert_eq!((&row["sources"], &row["scans"]), (&sources.len().into(), &(*scans).into()));
    }
    let counts: Vec<u64> = rows.iter().map(|row| row["sources"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{rows:?}");
    let system = &figures["autonomous_systems"]["rows"][0];
    assert_eq!((&system["asn"], &system["as_name"]), (&64_497.into(), &"Research Scanners".into()));
    let (_, text, _) = daemon.ctl(week);
    assert!(text.contains(&format!("  countries    BR ({})", wanted["BR"].0.len())), "{text}");
    assert!(
        text.contains("  systems      AS64497 Research Scanners (3), by their sources\n"),
        "{text}"
    );
    let (_, page, _) = daemon.ctl(&format!("{week} --html -"));
    support::keep_picture("report-geo.html", &page);
    for part in [
        "<h2>Countries ",
        ">BR</th>",
        "AS64497 <span class=\"dim\">Research Scanners</span>",
        "NL, AS64497 Research Scanners",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let plain = Daemon::start(FakeHandler { events: Some(100), ..FakeHandler::default() }, "");
    assert!(read(&plain, week).get("countries").is_none());
    assert!(!plain.ctl(&format!("{week} --html -")).1.contains("Countries"));
}

#[test]
fn watch_says_where_the_source_of_an_event_is() {
    let files = files();
    let daemon = files.daemon();
    let released = || Report::Released {
        source: Source::of("10.77.1.1".parse().unwrap(), 128),
        ending: SlowEnding::Expired,
        packets: None,
    };
    let line = daemon.first_event(|| Notice::Engine(released()));
    let event = &schema::check_events(&line)[0];
    assert_eq!(event["geo"], json!({"country": "DE", "asn": 64496, "as_name": BAD_NAME}));
}

/// Exit status and what `check` says of a configuration with these files.
fn checked(files: &Files, geo: &GeoFiles) -> (u8, Vec<Json>) {
    let path = files.path("portsentry.yaml");
    let of =
        |path: &Option<PathBuf>| path.as_ref().map_or("", |path| path.to_str().unwrap()).to_owned();
    let text = format!("geo:\n  country: \"{}\"\n  asn: \"{}\"\n", of(&geo.country), of(&geo.asn));
    std::fs::write(&path, text).unwrap();
    let words = ["portsentryctl", "--json", "check", path.to_str().unwrap()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let zone = portsentry::ctl::Zone::utc();
    let code = portsentry::ctl::run(words.map(Into::into), &mut out, &mut err, &zone);
    let document: Json = serde_json::from_slice(&out).unwrap();
    schema::check("check", &document);
    (code, document["diagnostics"].as_array().unwrap().clone())
}

#[test]
fn a_file_that_cannot_be_used_is_a_line_and_a_finding_and_no_failure() {
    let files = files();
    assert_eq!(checked(&files, &files.both()), (0, Vec::new()));
    let whole = countries(24);
    std::fs::write(files.path("short"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(files.path("empty"), "").unwrap();
    support::run("mkfifo", &[files.path("pipe").to_str().unwrap()]);
    for (name, why) in [
        ("nowhere", "No such file or directory"),
        ("short", "it is damaged, or of another format"),
        ("empty", "it is damaged, or of another format"),
        ("pipe", "it is no regular file"),
        (".", "it is no regular file"),
    ] {
        let path = files.path(name);
        let geo = GeoFiles { country: Some(path.clone()), ..files.both() };
        let handler = FakeHandler { geo: geo.clone(), ..FakeHandler::default() };
        let daemon = Daemon::start(handler, "");
        let start =
            format!("portsentryctl: `geo.country`: {} cannot be used: {why}", path.display());
        for command in ["list", "show 10.77.1.1", "history", "report"] {
            let (code, out, err) = daemon.ctl(command);
            assert!(code == 0 && !out.is_empty(), "{command}");
            assert!(err.starts_with(&start) && err.lines().count() == 1, "{err}");
        }
        // The other file is used.
        assert!(daemon.ctl("show 10.77.1.1").1.contains("  located      AS64496 "));
        let (code, _, err) = daemon.ctl("--json list");
        assert_eq!((code, schema::codes(&err)), (0, vec!["geo".to_owned()]));
        let (code, found) = checked(&files, &geo);
        assert_eq!((code, found.len()), (0, 1), "{found:?}");
        assert_eq!(found[0]["file"], files.path("portsentry.yaml").to_str().unwrap());
        assert_eq!((&found[0]["line"], &found[0]["severity"]), (&2.into(), &"warning".into()));
        assert!(found[0]["message"].as_str().unwrap().contains(why), "{found:?}");
        assert!(found[0]["remedy"].as_str().unwrap().contains("geoipupdate"), "{found:?}");
    }
    // A record that cannot be decoded: `check` alone reads all of them.
    let mut damaged = whole.clone();
    let at = whole.windows(8).position(|bytes| bytes == b"iso_code").unwrap() + 8;
    damaged[at] = 0xff;
    std::fs::write(files.path("country"), damaged).unwrap();
    let (_, found) = checked(&files, &files.both());
    assert!(found[0]["message"].as_str().unwrap().contains(" is damaged: "), "{found:?}");
    assert_eq!(files.daemon().ctl("list").0, 0);
}

#[test]
fn no_damage_of_a_file_ends_the_program() {
    let files = files();
    let daemon = files.daemon();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut decoded = 0;
    for round in 0..400 {
        for (name, whole) in [("country", countries(24 + 4 * (round % 3))), ("asn", systems(28))] {
            let mut bytes = whole.clone();
            match round % 4 {
                0 => bytes.truncate(next(whole.len())),
                1 => drop(bytes.drain(next(whole.len() / 2)..whole.len() / 2)),
                of => {
                    for _ in 0..=next(3 * of as usize) {
                        // Also in the records and what the file is, which are its smaller part.
                        let start = if next(2) == 0 { 0 } else { whole.len() - 500 };
                        let place = start + next(whole.len() - start);
                        bytes[place] = next(256) as u8;
                    }
                }
            }
            std::fs::write(files.path(name), bytes).unwrap();
        }
        let (code, out, _) = daemon.ctl("--json list");
        assert_eq!(code, 0, "round {round}");
        decoded += out.matches("\"geo\"").count();
        if round % 8 == 0 {
            assert_eq!(checked(&files, &files.both()).0, 0, "round {round}");
        }
    }
    assert!((50..1200).contains(&decoded), "{decoded}: some damage leaves a part to be read");
}
