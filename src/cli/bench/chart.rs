//! The result as a chart: messages per second on a logarithmic scale beside the published ones, and the latency.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::report::{PUBLISHED, Report};
use crate::cli::quantity::grouped;

const OURS: RGBColor = RGBColor(31, 95, 153);
const TAIL: RGBColor = RGBColor(143, 184, 222);
const THEIRS: RGBColor = RGBColor(190, 190, 190);
const INK: RGBColor = RGBColor(40, 40, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// One bar: label, value, colour, what is written beside it.
type Bar = (String, f64, RGBColor, String);

/// Draws `report` as SVG to `path`.
pub(super) fn draw(report: &Report, path: &Path) -> Result {
    let mut rates: Vec<Bar> = Vec::new();
    let mut trips: Vec<Bar> = Vec::new();
    for (transport, row) in &report.rows {
        let name = transport.name();
        rates.push((name.into(), row.messages_per_second, OURS, grouped(row.messages_per_second)));
        trips.push((format!("{name} p50"), row.p50_us, OURS, format!("{:.1}", row.p50_us)));
        trips.push((format!("{name} p99"), row.p99_us, TAIL, format!("{:.1}", row.p99_us)));
    }
    for line in &PUBLISHED {
        if report.rows.iter().any(|(transport, _)| transport.name() == line.name) {
            let label = format!("{} (TurboMCP)", line.name);
            rates.push((label.clone(), line.messages_per_second, THEIRS, grouped(line.messages_per_second)));
            trips.push((label, line.latency_us, THEIRS, format!("{:.1}", line.latency_us)));
        }
    }
    let height = 150 + 26 * u32::try_from(rates.len() + trips.len())?;
    let root = SVGBackend::new(path, (860, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let [machine, load] = report.header();
    root.draw_text(&machine, &text(14, INK), (20, 14))?;
    root.draw_text(&load, &text(12, INK), (20, 34))?;
    let split = 56 + 36 + 26 * i32::try_from(rates.len())?;
    let (upper, lower) = root.split_vertically(split);
    let title = format!("messages per second, {} under way (logarithmic scale)", report.window);
    panel(&upper, 60, &title, &rates, 1_000.0)?;
    panel(&lower, 4, "round trip with one under way, µs (logarithmic scale)", &trips, 0.1)?;
    let note = "grey: published by TurboMCP's authors, without machine, size or window; not measured here";
    root.draw_text(note, &text(11, INK), (20, i32::try_from(height)? - 22))?;
    root.present()?;
    Ok(())
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// Horizontal bars from `floor` on, below `top`.
fn panel(area: &Area<'_>, top: i32, title: &str, bars: &[Bar], floor: f64) -> Result {
    const LEFT: i32 = 150;
    const WIDTH: f64 = 560.0;
    area.draw_text(title, &text(13, INK), (20, top))?;
    let largest = bars.iter().map(|(_, value, ..)| *value).fold(floor * 10.0, f64::max);
    let label = text(12, INK).pos(Pos::new(HPos::Right, VPos::Center));
    let beside = text(12, INK).pos(Pos::new(HPos::Left, VPos::Center));
    let mut y = top + 26;
    for (name, value, colour, figure) in bars {
        let share = (value.max(floor * 1.01) / floor).log10() / (largest / floor).log10();
        let end = LEFT + (share * WIDTH) as i32;
        area.draw(&Rectangle::new([(LEFT, y), (end, y + 18)], colour.filled()))?;
        area.draw_text(name, &label, (LEFT - 8, y + 9))?;
        area.draw_text(figure, &beside, (end + 6, y + 9))?;
        y += 26;
    }
    Ok(())
}
