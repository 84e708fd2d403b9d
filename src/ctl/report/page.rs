//! The report as a page: one file with its style, without a script, and without anything from
//! elsewhere. What remote hosts chose, such as their names, is text and nothing else.

use std::fmt::{self, Display, Write};

use super::tally::{CountryRow, Counts, Figures, Ranked, Ranking, SourceRow, Span, SystemRow};
use super::{Facts, gaps, in_each, thousands};
use crate::control::protocol::Stamp;
use crate::ctl::Zone;
use crate::journal::format::printable;

const STYLE: &str = include_str!("style.css");

/// Height of a plot in units of its own.
const HEIGHT: u64 = 1000;

/// Labels below a plot.
const LABELS: usize = 5;

/// What is drawn over the time: its class, name, and what it means.
type Series = (&'static str, &'static str, &'static str, fn(&Counts) -> u64);

const SERIES: [Series; 4] = [
    ("scans", "Scans", "a source touched more closed ports than the trigger", |of| of.scans),
    ("slowed", "Slowed", "scans of sources whose address may be forged", |of| of.slowed),
    ("proven", "Proven", "slowed sources that showed that they get our answers", |of| of.proven),
    ("blocked", "Blocked", "all packets of the source are dropped", |of| of.blocked),
];

/// Text within an element or a quoted attribute.
struct Text<T>(T);

impl<T: AsRef<str>> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in printable(self.0.as_ref()).chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The page.
///
/// # Errors
/// None: a text takes everything.
pub(super) fn page(figures: &Figures, facts: &Facts, zone: &Zone) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let host = Text(&facts.host);
    let (since, until) = (zone.time(figures.since.0), zone.time(figures.until.0));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Port scans of {host}, {since} to {until}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<header>\n<h1>Port scans of {host}</h1>\n\
         <p class=\"dim\">{since} to {until}. What PortSentry saw on closed ports, and what it did.</p>\n</header>\n<main>\n"
    )?;
    tiles(&mut out, figures)?;
    let gaps = gaps(figures);
    if !gaps.is_empty() {
        writeln!(
            out,
            "<p class=\"note\"><b>Not in these figures:</b> {}.</p>",
            Text(gaps.join("; "))
        )?;
    }
    if figures.counts == Counts::default() {
        writeln!(
            out,
            "<section><h2>Nothing happened</h2><p>No scan was seen, and nothing was slowed or blocked.</p></section>"
        )?;
    } else {
        over_time(&mut out, figures, zone)?;
        sources(&mut out, &figures.sources, zone)?;
        out.push_str("<div class=\"grid\">\n");
        let scans = |Ranked { name, scans }: &Ranked| (name.clone(), *scans, None);
        let ports = |Ranked { name, scans }: &Ranked| (name.clone(), *scans, (facts.service)(name));
        let head = ["Ports", "and how many scans touched each", "Port", "Scans"];
        ranking(&mut out, head, &figures.ports, ports)?;
        let head = ["Kinds of scan", "and their scans", "Kind", "Scans"];
        ranking(&mut out, head, &figures.kinds, scans)?;
        let head = ["Networks", "and the scans of their sources", "Network", "Scans"];
        ranking(&mut out, head, &figures.networks, scans)?;
        if let Some(countries) = &figures.countries {
            let row = |CountryRow { country, of }: &CountryRow| (country.clone(), of.sources, None);
            let head = ["Countries", "and the sources of scans in them", "Country", "Sources"];
            ranking(&mut out, head, countries, row)?;
        }
        if let Some(systems) = &figures.autonomous_systems {
            let row = |SystemRow { asn, as_name, of }: &SystemRow| {
                (format!("AS{asn}"), of.sources, as_name.clone())
            };
            let head = ["Autonomous systems", "and the sources of scans in them", "AS", "Sources"];
            ranking(&mut out, head, systems, row)?;
        }
        out.push_str("</div>\n");
    }
    writeln!(
        out,
        "</main>\n<footer>PortSentry {}, from {} events. Times are local times of the host.</footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION"),
        thousands(figures.events)
    )?;
    Ok(out)
}

/// The totals.
fn tiles(out: &mut String, figures: &Figures) -> fmt::Result {
    let more = if figures.distinct_exceeded { "more than " } else { "" };
    let sources = format!("from {more}{} sources", thousands(figures.distinct));
    let ordered = match figures.ordered {
        0 => "all packets dropped".to_owned(),
        ordered => format!("{} by order of an administrator", thousands(ordered)),
    };
    let notes = [
        sources.as_str(),
        "new connections wait for a second",
        "their address is not forged",
        &ordered,
    ];
    out.push_str("<dl class=\"tiles\">\n");
    for ((class, name, _, of), note) in SERIES.iter().zip(notes) {
        let number = thousands(of(&figures.counts));
        writeln!(
            out,
            "<div class=\"{class}\"><dt>{name}</dt><dd class=\"number\">{number}</dd><dd class=\"dim\">{note}</dd></div>"
        )?;
    }
    out.push_str("</dl>\n");
    Ok(())
}

/// A plot for each series, one below the other, over the same time.
fn over_time(out: &mut String, figures: &Figures, zone: &Zone) -> fmt::Result {
    let each = in_each(figures.span);
    writeln!(out, "<section><h2>Over time</h2>")?;
    for series in &SERIES {
        plot(out, series, figures, &each, zone)?;
    }
    writeln!(
        out,
        "<details><summary>The figures of these plots, in each {each}</summary>\n<table><thead><tr><th scope=\"col\">From</th>"
    )?;
    for (_, name, ..) in SERIES {
        write!(out, "<th scope=\"col\" class=\"n\">{name}</th>")?;
    }
    out.push_str("</tr></thead><tbody>\n");
    for Span { at, counts } in figures.spans.iter().filter(|span| span.counts != Counts::default())
    {
        write!(out, "<tr><th scope=\"row\">{}</th>", zone.time(at.0))?;
        for (.., of) in SERIES {
            write!(out, "<td class=\"n\">{}</td>", thousands(of(counts)))?;
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></details></section>\n");
    Ok(())
}

fn plot(
    out: &mut String,
    (class, name, meaning, of): &Series,
    figures: &Figures,
    each: &str,
    zone: &Zone,
) -> fmt::Result {
    let spans = &figures.spans;
    let peak = spans.iter().map(|span| of(&span.counts)).max().unwrap_or(0);
    let (total, most) = (thousands(of(&figures.counts)), thousands(peak));
    let when = spans.iter().find(|span| of(&span.counts) == peak && peak > 0);
    let when = when.map(|span| format!(", from {}", zone.time(span.at.0))).unwrap_or_default();
    let width = spans.len() * 10;
    write!(
        out,
        "<figure class=\"{class}\"><figcaption><span><b>{name}</b> <span class=\"dim\">{meaning}</span></span> \
         <span class=\"dim\">at most {most} in {each}</span></figcaption>\n\
         <svg class=\"plot\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"{class}-title {class}-desc\">\
         <title id=\"{class}-title\">{name} over time</title>\
         <desc id=\"{class}-desc\">{total} in all; in each {each} at most {most}{when}.</desc>\n"
    )?;
    for (place, Span { at, counts }) in spans.iter().enumerate() {
        let count = of(counts);
        // What happened once is visible beside a flood.
        let least = if count > 0 { HEIGHT / 50 } else { 0 };
        let height = scaled(count, peak).max(least);
        let x = place * 10;
        write!(
            out,
            "<g><title>{}: {}</title><rect class=\"slot\" x=\"{x}\" width=\"10\" height=\"{HEIGHT}\"/>",
            zone.time(at.0),
            thousands(count)
        )?;
        if height > 0 {
            let y = HEIGHT - height;
            write!(
                out,
                "<rect class=\"bar\" x=\"{}\" y=\"{y}\" width=\"8\" height=\"{height}\"/>",
                x + 1
            )?;
        }
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n<div class=\"axis\" aria-hidden=\"true\">");
    let form = if figures.span < 10_800 { "%a %H:%M" } else { "%-d %b" };
    for label in 0..LABELS {
        let second = figures.since.0.as_second();
        let length = figures.until.0.as_second() - second;
        let at = second + length * label as i64 / (LABELS as i64 - 1);
        let at = jiff::Timestamp::from_second(at).unwrap_or(figures.since.0);
        write!(out, "<span>{}</span>", zone.form(at, form))?;
    }
    out.push_str("</div></figure>\n");
    Ok(())
}

fn scaled(count: u64, peak: u64) -> u64 {
    count.saturating_mul(HEIGHT).checked_div(peak).unwrap_or(0)
}

/// The sources with what became of them.
fn sources(out: &mut String, ranking: &Ranking<SourceRow>, zone: &Zone) -> fmt::Result {
    out.push_str("<section class=\"sources\"><h2>Sources</h2>\n<table><thead><tr><th scope=\"col\">Address</th><th scope=\"col\">Name</th>");
    for name in ["Scans", "Probes", "Slowed", "Proven", "Blocked"] {
        write!(out, "<th scope=\"col\" class=\"n\">{name}</th>")?;
    }
    out.push_str("<th scope=\"col\" class=\"n\">Last</th></tr></thead><tbody>\n");
    for SourceRow { address, geo, host, counts, probes, last } in &ranking.rows {
        let name = host.as_deref().unwrap_or_default();
        let place = geo
            .as_ref()
            .map(|geo| format!("<div class=\"dim\"><bdi>{}</bdi></div>", Text(geo.to_string())));
        write!(
            out,
            "<tr><th scope=\"row\">{address}{}</th><td class=\"name\"><bdi>{}</bdi></td>",
            place.unwrap_or_default(),
            Text(name)
        )?;
        let Counts { scans, slowed, proven, blocked } = *counts;
        let figures = [scans, *probes, slowed, proven, blocked];
        for (of, number) in ["scans", "probes", "slowed", "proven", "blocked"].iter().zip(figures) {
            let number = if number == 0 { String::new() } else { thousands(number) };
            write!(out, "<td class=\"n\" data-of=\"{of}\">{number}</td>")?;
        }
        let Stamp(last) = last;
        writeln!(
            out,
            "<td class=\"n\" data-of=\"last\">{}</td></tr>",
            zone.form(*last, "%Y-%m-%d %H:%M")
        )?;
    }
    rest(out, ranking.rows.len(), ranking.others, ranking.approximate, "sources")?;
    out.push_str("</section>\n");
    Ok(())
}

/// The end of a table: what is not in it.
fn rest(out: &mut String, rows: usize, others: u64, approximate: bool, of: &str) -> fmt::Result {
    out.push_str("</tbody>");
    match (rows, others) {
        (0, _) => out.push_str("<caption>None.</caption>"),
        (_, 0) => {}
        (_, others) => {
            let (about, why) = match approximate {
                true => ("about ", "; they were too many to count each exactly"),
                false => ("", ""),
            };
            write!(out, "<caption>And {about}{} other {of}{why}.</caption>", thousands(others))?;
        }
    }
    out.push_str("</table>");
    Ok(())
}

/// A table of the most frequent, with a bar for each. `head`: its title, what that is about, and the
/// names of the columns; `row`: name, number and note of a row.
fn ranking<T>(
    out: &mut String,
    [title, about, name, number]: [&str; 4],
    ranking: &Ranking<T>,
    row: impl Fn(&T) -> (String, u64, Option<String>),
) -> fmt::Result {
    let class = name.to_lowercase();
    let rows: Vec<_> = ranking.rows.iter().map(row).collect();
    let most = rows.iter().map(|(_, number, _)| *number).max().unwrap_or(0);
    writeln!(
        out,
        "<section class=\"ranking {class}\"><h2>{title} <span>{about}</span></h2>\n<table><thead><tr><th scope=\"col\">{name}</th><th scope=\"col\" class=\"n\">{number}</th><td class=\"share\"></td></tr></thead><tbody>"
    )?;
    for (name, number, note) in &rows {
        let note = note.as_ref().map(|note| format!(" <span class=\"dim\">{}</span>", Text(note)));
        writeln!(
            out,
            "<tr><th scope=\"row\">{}{}</th><td class=\"n\">{}</td><td class=\"share\"><svg viewBox=\"0 0 {HEIGHT} 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{}\" height=\"10\"/></svg></td></tr>",
            Text(name),
            note.unwrap_or_default(),
            thousands(*number),
            scaled(*number, most).max(HEIGHT / 100)
        )?;
    }
    rest(out, rows.len(), ranking.others, ranking.approximate, &title.to_lowercase())?;
    out.push_str("</section>\n");
    Ok(())
}
