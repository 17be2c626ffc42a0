//! A section as bars.

use std::fmt::Write;

use super::table::{Section, rounded};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const BAR: f64 = 20.0;
const STEP: f64 = 30.0;
const TOP: f64 = 48.0;

/// Medians as bars, least to most as a line over each.
pub(crate) fn svg(section: &Section) -> String {
    let height = TOP + STEP * section.rows.len() as f64 + 10.0;
    let all = section.rows.iter().filter_map(|row| row.figures.as_ref().ok()).flatten();
    let most = all.copied().fold(f64::MIN_POSITIVE, f64::max);
    // Room for the figure at the end of the longest.
    let scale = (WIDTH - LEFT - 110.0) / most;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let better = if section.more_is_better { "more" } else { "less" };
    let _ = writeln!(
        text,
        "<text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\" fill=\"#1a1a1a\">{}</text>\n\
         <text x=\"10\" y=\"38\" fill=\"#666666\">{}, {better} is better; median, least to most</text>",
        section.title, section.unit
    );
    for (index, row) in section.rows.iter().enumerate() {
        let y = TOP + STEP * index as f64;
        let middle = y + BAR / 2.0 + 5.0;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}</text>",
            LEFT - 8.0,
            row.name
        );
        match (&row.figures, row.median()) {
            (Ok(figures), Some(median)) => {
                let (low, high) = figures.iter().fold((f64::MAX, 0_f64), |(low, high), figure| {
                    (low.min(*figure), high.max(*figure))
                });
                let colour = if row.name.starts_with("pollux") { "#c2410c" } else { "#94a3b8" };
                let (width, line) = ((median * scale).max(1.0), y + BAR / 2.0);
                let (low, high) = (LEFT + low * scale, LEFT + high * scale);
                let end = high.max(LEFT + width) + 6.0;
                let _ = writeln!(
                    text,
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
                     <line x1=\"{low:.1}\" y1=\"{line}\" x2=\"{high:.1}\" y2=\"{line}\" stroke=\"#1a1a1a\"/>\n\
                     <text x=\"{end:.1}\" y=\"{middle}\" fill=\"#1a1a1a\">{}</text>",
                    rounded(median)
                );
            }
            _ => {
                let _ = writeln!(
                    text,
                    "<text x=\"{LEFT}\" y=\"{middle}\" fill=\"#666666\">skipped</text>"
                );
            }
        }
    }
    text += "</svg>\n";
    text
}
