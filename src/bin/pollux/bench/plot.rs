//! The histograms of the round trips as a picture.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::text::thousands;
use crate::units::show_duration;

const WIDTH: f64 = 820.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// Of the title of a panel, its bars, and the scale below them.
const TITLE: f64 = 46.0;
const BARS: f64 = 180.0;
const SCALE: f64 = 40.0;
const PANEL: f64 = TITLE + BARS + SCALE;

/// Bars for each factor of ten.
const BARS_A_DECADE: f64 = 24.0;

/// Lines across the bars, each on a height of its own for its name.
const MARKS: [(&str, f64); 4] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// One panel for each histogram with anything in it: times from left to right, ten
/// times as long at each line; how many from bottom to top, ten times as many at each.
pub(super) fn svg(title: &str, histograms: &[(String, &Histogram<u64>)]) -> String {
    let shown: Vec<_> = histograms.iter().filter(|(_, histogram)| !histogram.is_empty()).collect();
    let height = 34.0 + PANEL * shown.len().max(1) as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"13\" fill=\"#1a1a1a\">{}</text>\n",
        escaped(title)
    );
    // The same scale for all, so that they can be compared.
    let least = shown.iter().map(|(_, histogram)| histogram.min()).min().unwrap_or(1).max(1);
    let most = shown.iter().map(|(_, histogram)| histogram.max()).max().unwrap_or(10);
    let scale = Scale::new(least, most);
    for (index, (name, histogram)) in shown.iter().enumerate() {
        panel(&mut text, 34.0 + PANEL * index as f64, name, histogram, scale);
    }
    text.push_str("</svg>\n");
    text
}

/// Times along the bottom.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Whole powers of ten in nanoseconds: the first and the last line.
    first: i32,
    last: i32,
}

impl Scale {
    fn new(least: u64, most: u64) -> Scale {
        let first = (least as f64).log10().floor() as i32;
        let last = (most as f64).log10().ceil() as i32;
        Scale { first, last: last.max(first + 1) }
    }

    fn x(self, ns: f64) -> f64 {
        let part =
            (ns.max(1.0).log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// How many of `histogram` fall into each bar.
    fn bars(self, histogram: &Histogram<u64>) -> Vec<u64> {
        let count = (f64::from(self.last - self.first) * BARS_A_DECADE) as usize;
        let mut bars = vec![0; count];
        for step in histogram.iter_recorded() {
            let decades = (step.value_iterated_to().max(1) as f64).log10() - f64::from(self.first);
            let bar = ((decades * BARS_A_DECADE).max(0.0) as usize).min(count - 1);
            bars[bar] += step.count_since_last_iteration();
        }
        bars
    }

    /// Where a bar begins.
    fn edge(self, bar: usize) -> f64 {
        self.x(10_f64.powf(f64::from(self.first) + bar as f64 / BARS_A_DECADE))
    }
}

fn panel(text: &mut String, top: f64, name: &str, histogram: &Histogram<u64>, scale: Scale) {
    let bars = scale.bars(histogram);
    let highest = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    // A bar of one is seen, too.
    let decades = highest.log10().ceil().max(1.0) + 0.3;
    let (above, bottom) = (top + TITLE, top + TITLE + BARS);
    let y = |count: f64| bottom - (count.log10() + 0.3).max(0.0) / decades * BARS;
    let _ = writeln!(
        text,
        "<text x=\"12\" y=\"{:.1}\" fill=\"#1a1a1a\"><tspan font-weight=\"bold\">{}</tspan>: {} round \
         trips</text>",
        top + 14.0,
        escaped(name),
        thousands(histogram.len())
    );
    for power in 0..=highest.log10().floor() as u32 {
        let at = y(10_f64.powi(power as i32));
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666666\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            thousands(10_u64.pow(power))
        );
    }
    for power in scale.first..=scale.last {
        let ns = 10_f64.powi(power);
        let at = scale.x(ns);
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{above:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" \
             stroke=\"#e4e4e4\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             fill=\"#666666\">{}</text>",
            bottom + 18.0,
            show_duration(Duration::from_nanos(ns as u64))
        );
    }
    for (bar, &count) in bars.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let (from, to, at) = (scale.edge(bar), scale.edge(bar + 1), y(count as f64));
        let _ = writeln!(
            text,
            "<rect x=\"{from:.1}\" y=\"{at:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"#4878a8\"/>",
            (to - from - 0.8).max(0.8),
            bottom - at
        );
    }
    marks(text, above, bottom, histogram, scale);
}

/// Percentiles, with names that do not lie one over the other.
fn marks(text: &mut String, above: f64, bottom: f64, histogram: &Histogram<u64>, scale: Scale) {
    let marks = MARKS.map(|(name, percentile)| {
        let ns = histogram.value_at_percentile(percentile).min(histogram.max());
        (scale.x(ns as f64), format!("{name} {}", show_duration(Duration::from_nanos(ns))))
    });
    let places = places(&marks.each_ref().map(|(at, label)| (*at, label.len() as f64 * 7.2)));
    for ((at, label), label_at) in marks.iter().zip(places) {
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"#c44e30\" \
             stroke-dasharray=\"4 3\"/><text x=\"{label_at:.1}\" y=\"{:.1}\" \
             fill=\"#c44e30\">{label}</text>",
            above - 4.0,
            above - 10.0
        );
    }
}

/// Where names of these widths begin, each as near to the middle of its own place as
/// those before it and the edges let it be.
fn places(wanted: &[(f64, f64); MARKS.len()]) -> [f64; MARKS.len()] {
    const BETWEEN: f64 = 10.0;
    let mut places = [0.0; MARKS.len()];
    let mut free_from = LEFT;
    for (place, (at, width)) in places.iter_mut().zip(wanted) {
        *place = (at - width / 2.0).max(free_from);
        free_from = *place + width + BETWEEN;
    }
    let mut free_to = WIDTH;
    for (place, (_, width)) in places.iter_mut().zip(wanted).rev() {
        *place = place.min(free_to - width);
        free_to = *place - BETWEEN;
    }
    places
}

/// Text that is none of the picture's own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[(u64, u64)]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        values.iter().for_each(|&(value, count)| histogram.record_n(value, count).unwrap());
        histogram
    }

    #[test]
    fn every_round_trip_is_in_a_bar() {
        let all = histogram(&[(900, 3), (40_000, 500), (41_000, 7), (7_000_000, 1)]);
        let scale = Scale::new(all.min(), all.max());
        assert_eq!((scale.first, scale.last), (2, 7));
        let bars = scale.bars(&all);
        assert_eq!(bars.iter().sum::<u64>(), all.len());
        assert_eq!(bars.iter().filter(|&&count| count > 0).count(), 3);
        assert!(scale.x(900.0) > LEFT && scale.x(7e6) < WIDTH - RIGHT);
    }

    #[test]
    fn names_lie_beside_one_another_and_within_the_picture() {
        for at in [[LEFT; 4], [400.0; 4], [WIDTH - RIGHT; 4], [100.0, 101.0, 790.0, 795.0]] {
            let wanted = at.map(|at| (at, 80.0));
            let places = places(&wanted);
            assert!(places.windows(2).all(|pair| pair[0] + 80.0 < pair[1]), "{places:?}");
            assert!(places[0] > 0.0 && places[3] + 80.0 <= WIDTH, "{places:?}");
        }
    }

    #[test]
    fn the_picture_has_a_panel_for_each_that_was_measured() {
        let (some, none) = (histogram(&[(50_000, 10)]), histogram(&[]));
        let named = |histogram| ("a < b".to_owned(), histogram);
        let picture = svg("a & b", &[named(&some), named(&none), named(&some)]);
        assert_eq!(picture.matches("p99.9").count(), 2);
        assert!(picture.contains("a &amp; b") && picture.contains("a &lt; b"));
        assert!(svg("", &[named(&none)]).ends_with("</svg>\n"));
    }
}
