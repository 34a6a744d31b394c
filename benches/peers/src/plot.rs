//! The picture of a run: a panel for each workload, a bar for each service. One of them is for wide pages, one for telephones.

use std::fmt::Write as _;

use wigwag::bench::report::Line;

use crate::report::{Compared, Report, cost, shown_cost};
use crate::workload::{PAIRS, RATE, WINDOW};

/// How large things are, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    width: f64,
    columns: usize,
}

impl Layout {
    /// Two panels side by side.
    pub(crate) const WIDE: Layout = Layout { width: 1000.0, columns: 2 };
    /// One below the other, for 390 pixels.
    pub(crate) const NARROW: Layout = Layout { width: 390.0, columns: 1 };

    fn panel_width(self) -> f64 {
        (self.width - MARGIN * (self.columns as f64 + 1.0)) / self.columns as f64
    }
}

const MARGIN: f64 = 16.0;
/// Of a panel above its bars: what is done, and what is measured.
const HEAD: f64 = 44.0;
/// From one bar to the next.
const ROW: f64 = 20.0;
const BAR: f64 = 12.0;
/// For the names of services.
const NAMES: f64 = 146.0;
/// For figures behind the longest bar.
const FIGURES: f64 = 112.0;
const TITLE: f64 = 40.0;
const FOOT_LINE: f64 = 16.0;
/// Of the small print, on average.
const CHARACTER: f64 = 6.4;

/// Own background: a page may be dark where its reader's system is light.
const STYLE: &str = "
    text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 } .head { font-size: 13px; font-weight: 600 }
    .small { font-size: 11px; fill: #59636e } .figure { font-variant-numeric: tabular-nums }
    .page { fill: #fff } .raw { fill: #818b98 } .wigwag { fill: #0969da } .other { fill: #c27c1c }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 }
      .raw { fill: #7d8590 } .wigwag { fill: #4493f8 } .other { fill: #d29922 }
    }
";

/// Draws a run as SVG.
pub(crate) fn draw(report: &Report, layout: Layout) -> String {
    let workloads = report.workloads();
    let mut body = String::new();
    let mut bottom = TITLE;
    for row in workloads.chunks(layout.columns) {
        let mut lowest = bottom;
        for (column, workload) in row.iter().enumerate() {
            let left = MARGIN + column as f64 * (layout.panel_width() + MARGIN);
            lowest = f64::max(lowest, panel(&mut body, report, workload, layout, (left, bottom)));
        }
        bottom = lowest + MARGIN;
    }
    let foot = foot(report, layout);
    for line in &foot {
        bottom += FOOT_LINE;
        text(&mut body, (MARGIN, bottom), "small", line);
    }
    let (width, height) = (layout.width, bottom + MARGIN);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0}" viewBox="0 0 {width} {height:.0}" role="img" aria-labelledby="title">"#
    );
    let _ = write!(svg, r#"<title id="title">{TITLE_TEXT}</title><style>{STYLE}</style>"#);
    let _ = write!(svg, r#"<rect class="page" width="{width}" height="{height:.0}"/>"#);
    text(&mut svg, (MARGIN, 26.0), "title", TITLE_TEXT);
    svg + &body + "</svg>\n"
}

const TITLE_TEXT: &str = "What signaling costs the server";

/// Draws the bars of one workload; returns where the panel ends.
fn panel(svg: &mut String, report: &Report, workload: &Line, layout: Layout, (left, top): (f64, f64)) -> f64 {
    let (what, measured) = caption(&workload.workload);
    text(svg, (left, top + 16.0), "head", &what);
    text(svg, (left, top + 32.0), "small", measured);
    let of = |service: &str| report.result(&workload.workload, service);
    let longest = report
        .services
        .iter()
        .filter_map(|service| of(&service.name))
        .map(|result| cost(&result.line))
        .fold(0.0, f64::max);
    let space = layout.panel_width() - NAMES - FIGURES;
    let mut y = top + HEAD;
    for service in &report.services {
        text(svg, (left, y + 10.0), "", &service.name);
        let bar = left + NAMES;
        match of(&service.name) {
            Some(result) => {
                let length = f64::max(space * cost(&result.line) / longest, 1.0);
                let kind = kind(&service.name);
                let _ = write!(
                    svg,
                    r#"<rect class="{kind}" x="{bar:.1}" y="{y:.1}" width="{length:.1}" height="{BAR}" rx="2"/>"#
                );
                text(svg, (bar + length + 6.0, y + 10.0), "figure", &figure(result));
            }
            None => text(svg, (bar, y + 10.0), "small", "not measured"),
        }
        y += ROW;
    }
    y
}

/// What is done, and what of it is measured.
fn caption(workload: &str) -> (String, &'static str) {
    let (what, measured) = match workload {
        "relay" => ("A message, one in flight", "processor time"),
        "paced" => return (format!("A message, {RATE} a second of {PAIRS} pairs"), "processor time"),
        "pipelined" => return (format!("A message, {WINDOW} in flight"), "processor time"),
        "fan-out" => ("A message to a room, for each member", "processor time"),
        "setup" => ("A call, from two connects to two leaves", "processor time; TLS, offer, answer, 20 candidates"),
        "storm" => ("A join, when many come at once", "processor time, TLS handshake included"),
        "idle" => ("An idle session", "memory"),
        other => (other, ""),
    };
    (what.to_owned(), measured)
}

fn figure(result: &Compared) -> String {
    let value = shown_cost(&result.line);
    // The yardstick's own ratio says nothing.
    let ratio = result.ratio.filter(|_| kind(&result.line.via) != "raw");
    ratio.map_or_else(|| value.clone(), |ratio| format!("{value} · {ratio:.1}×"))
}

fn kind(service: &str) -> &'static str {
    match service.split('-').next() {
        Some("raw") => "raw",
        Some("wigwag") => "wigwag",
        _ => "other",
    }
}

fn foot(report: &Report, layout: Layout) -> Vec<String> {
    let rounds = match report.rounds {
        1 => "One round.".to_owned(),
        rounds => format!("Medians of {rounds} rounds."),
    };
    let paragraphs = [
        format!(
            "Less is better. ×: of the relay that knows nothing, over QUIC for HTTP/3 and WebTransport, else over TLS. {rounds}"
        ),
        format!("{}. One processor for the server, another for the load.", report.machine),
        report.command.clone(),
    ];
    let characters = ((layout.width - 2.0 * MARGIN) / CHARACTER) as usize;
    paragraphs.iter().flat_map(|paragraph| wrapped(paragraph, characters)).collect()
}

/// Lines of no more than so many characters, where no word is longer.
fn wrapped(paragraph: &str, characters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= characters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = write!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{words}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn every_service_has_a_bar_in_every_panel_and_the_longest_fits() {
        for layout in [Layout::WIDE, Layout::NARROW] {
            let svg = draw(&report(&[("raw-tls", 2.0), ("wigwag-websocket-h1", 3.0), ("ws", 20.0)]), layout);
            let bars: Vec<&str> = svg.split("<rect class=\"").skip(2).collect();
            assert_eq!(bars.len(), 3);
            assert!(bars[0].starts_with("raw") && bars[1].starts_with("wigwag") && bars[2].starts_with("other"));
            let length = |bar: &str| -> f64 {
                bar.split_once("width=\"")
                    .and_then(|(_, rest)| rest.split('"').next())
                    .expect("a width")
                    .parse()
                    .expect("a number")
            };
            assert!((length(bars[0]) * 10.0 - length(bars[2])).abs() < 1.0);
            assert!(NAMES + length(bars[2]) + FIGURES <= layout.panel_width() + 0.1);
            assert!(svg.contains("3.00 µs · 1.5×"), "{svg}");
        }
    }

    #[test]
    fn what_was_typed_is_text() {
        let mut report = report(&[("ws", 1.0)]);
        report.command = "run --only <a>&b".to_owned();
        assert!(draw(&report, Layout::WIDE).contains(">run --only &lt;a&gt;&amp;b<"));
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
    }
}
