//! `portsentryctl report`: a page that is whole, self-contained, right, and readable in a browser.

use crate::control::fake::{Daemon, FakeHandler};
use crate::support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The time of the events.
const WEEK: &str = "--since 2026-11-20T00:00Z --until 2026-11-26T23:59:59Z";

fn daemon(events: u32) -> Daemon {
    Daemon::start(FakeHandler { events: Some(events), ..FakeHandler::default() }, "")
}

fn page(events: u32) -> String {
    let (code, out, err) = daemon(events).ctl(&format!("report {WEEK} --html -"));
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

fn figures(events: u32) -> Value {
    let (code, out, err) = daemon(events).ctl(&format!("report {WEEK} --json"));
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

/// The elements that are opened, in order. Panics where one is closed that is not open, or a quote
/// is missing.
fn elements(page: &str) -> Vec<String> {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(!text.contains('>') || open.last().is_some_and(|of| of == "style"), "{text:?}");
        let (tag, after) = tag.split_once('>').unwrap();
        rest = after;
        assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "</{name}>");
        } else {
            if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
                open.push(name.clone());
            }
            all.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are open");
    all
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    let many = std::env::var_os(support::PICTURES).map_or(2000, |_| 100_000);
    for events in [0, 100, many] {
        let page = page(events);
        support::keep_picture(&format!("report-{events}.html"), &page);
        let elements = elements(&page);
        for wrong in ["script", "img", "link", "iframe", "a", "object", "image", "use"] {
            assert!(!elements.iter().any(|name| name == wrong), "<{wrong}> with {events} events");
        }
        for wrong in ["http:", "https:", "url(", "@import", "src=", "href=", " on", "data:"] {
            let page = page.replace(" on ", " ").replace(" once", " ");
            assert!(!page.contains(wrong), "{wrong} with {events} events");
        }
        assert!(page.contains("default-src 'none'") && page.len() < 200_000, "{}", page.len());
        // Each plot has a name and says in words what it shows.
        let plots = page.matches("class=\"plot\"").count();
        assert_eq!(plots, if events == 0 { 0 } else { 4 });
        for id in ["scans", "slowed", "proven", "blocked"].iter().filter(|_| events > 0) {
            for part in ["title", "desc"] {
                assert!(page.contains(&format!("<{part} id=\"{id}-{part}\">")), "{id} {part}");
            }
        }
    }
}

#[test]
fn a_hostile_name_is_text_on_the_page_and_on_the_terminal() {
    let page = page(2000);
    assert!(
        page.contains(
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\\u{202e}.example"
        )
    );
    let (_, text, _) = daemon(2000).ctl(&format!("report {WEEK}"));
    assert!(
        text.contains("</script>\"'&\\u{202e}.example") && !text.contains('\u{202e}'),
        "{text}"
    );
}

#[test]
fn the_figures_of_page_terminal_and_json_are_those_of_the_events() {
    let mut wanted = [0_u64; 4];
    for row in (0..2000).map(|n| crate::control::fake::made(n, 2000)) {
        let kinds = ["scan", "slowed", "proven", "blocked"];
        if let Some(at) = kinds.iter().position(|kind| *kind == row.kind) {
            wanted[at] += 1;
        }
    }
    let figures = figures(2000);
    let found = ["scans", "slowed", "proven", "blocked"].map(|key| figures[key].as_u64().unwrap());
    assert_eq!(found, wanted);
    assert_eq!(figures["events"], 2000);
    let spans = figures["spans"].as_array().unwrap();
    let sum: u64 = spans.iter().map(|span| span["scans"].as_u64().unwrap()).sum();
    assert_eq!((sum, spans.len(), &figures["span"]), (wanted[0], 56, &10_800.into()));
    let kinds = figures["kinds"]["rows"].as_array().unwrap();
    let sum: u64 = kinds.iter().map(|kind| kind["scans"].as_u64().unwrap()).sum();
    assert_eq!(sum, wanted[0]);
    let page = page(2000);
    for number in found {
        let shown =
            format!("<dd class=\"number\">{}\u{2009}{:03}</dd>", number / 1000, number % 1000);
        let shown = if number < 1000 { format!("number\">{number}</dd>") } else { shown };
        assert!(page.contains(&shown), "{shown}");
    }
    let (_, text, _) = daemon(2000).ctl(&format!("report {WEEK}"));
    assert!(text.contains(&format!("  scans        {}, from ", found[0])), "{text}");
    // Each bar has its height: the highest has all of it.
    let plot = page.split("<figure class=\"scans\">").nth(1).unwrap();
    let plot = plot.split("</figure>").next().unwrap();
    assert_eq!(plot.matches("class=\"bar\"").count(), 56 - plot.matches(": 0<").count());
    assert_eq!(plot.matches("y=\"0\"").count(), 1, "one of them is the highest");
}

#[test]
fn nothing_happened_is_said_and_gaps_are() {
    let page = page(0);
    assert!(page.contains("<h2>Nothing happened</h2>"));
    assert!(!page.contains("Not in these figures"));
    let (code, text, _) = daemon(0).ctl(&format!("report {WEEK}"));
    assert!(code == 0 && text.contains("  scans        0, from 0 sources"), "{text}");
    assert!(self::page(2000).contains("4\u{2009}711 events that were not stored in a flood"));
}

#[test]
fn the_page_is_written_for_its_owner_alone_and_never_half() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = daemon(100);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.html");
    let line = format!("report {WEEK} --html {}", path.display());
    let (code, out, err) = daemon.ctl(&line);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, format!("{} has the report\n", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
    let (code, _, err) = daemon.ctl("report --html /nowhere/report.html");
    assert!(code == 70 && err.contains("/nowhere/report.html cannot be written"), "{code} {err}");
    let failing = Daemon::start(FakeHandler { failing: true, ..FakeHandler::default() }, "");
    let (code, _, err) = failing.ctl(&line);
    assert!(code == 70 && err.contains("the disk is on fire"), "{code} {err}");
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>\n"), "the old one stays");
}

/// The page in headless Chromium, in a window of this width: what a script that is added to it
/// measures.
fn measured(page: &str, directory: &Path, width: u32, more: &[&str]) -> Value {
    // The policy of the page would refuse this script, as it should.
    let (head, tail) = page.split_once("<meta http-equiv").unwrap();
    let (_, tail) = tail.split_once(">\n").unwrap();
    let script = "<script>addEventListener('load', () => {
        const of = (what) => [...document.querySelectorAll(what)];
        const outside = of('main *').filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
        document.body.textContent = JSON.stringify({
            width: innerWidth,
            scrolls: document.documentElement.scrollWidth,
            outside: outside.map((e) => e.outerHTML.slice(0, 80)),
            bars: of('.scans .bar').filter((e) => e.getBoundingClientRect().height >= 1).length,
            plot: of('svg.plot')[0].getBoundingClientRect().height,
            back: getComputedStyle(document.body).backgroundColor,
            smallest: Math.min(...of('main *').map((e) => parseFloat(getComputedStyle(e).fontSize))),
        });
    })</script>";
    let path = directory.join("measured.html");
    std::fs::write(&path, format!("{head}{tail}{script}")).unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"])
        .args([format!("--user-data-dir={}", directory.join("profile").display())])
        .args([format!("--window-size={width},900")])
        .args(more)
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let body = text.split_once("<body>").and_then(|(_, rest)| rest.split_once("</body>"));
    let Some((body, _)) = body else { panic!("{}", support::output_text(&output)) };
    serde_json::from_str(&body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn a_browser_shows_the_page_whole_on_a_desk_and_a_phone_light_and_dark() {
    if support::missing(&["chromium"]).is_some() {
        return;
    }
    let page = crate::geo::page(WEEK);
    let directory = tempfile::tempdir().unwrap();
    let dark = "--blink-settings=preferredColorScheme=0";
    for (width, more) in [(1280, &[][..]), (500, &[dark])] {
        let found = measured(&page, directory.path(), width, more);
        assert_eq!(found["width"], width, "{found}");
        assert_eq!(found["outside"], Value::Array(Vec::new()), "{found}");
        assert!(found["scrolls"].as_u64().unwrap() <= u64::from(width), "{found}");
        assert!(found["bars"].as_u64().unwrap() >= 50, "{found}");
        assert!(found["plot"].as_f64().unwrap() > 60.0, "{found}");
        assert!(found["smallest"].as_f64().unwrap() >= 12.0, "{found}");
        let back = if more.is_empty() { "rgb(251, 251, 249)" } else { "rgb(20, 23, 26)" };
        assert_eq!(found["back"], back, "{found}");
    }
}
