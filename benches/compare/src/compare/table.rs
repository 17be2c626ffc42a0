//! The table, for people and for programs.

use std::fmt::Write;

use super::scenes::Scene;

/// A scene with its figures.
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    pub(crate) rows: Vec<Row>,
}

/// A contender's figures in the order of the rounds, or why there are none.
pub(crate) struct Row {
    pub(crate) name: String,
    /// All rows are compared with it.
    pub(crate) is_baseline: bool,
    pub(crate) figures: Result<Vec<f64>, String>,
}

impl Row {
    pub(crate) fn median(&self) -> Option<f64> {
        self.figures.as_ref().ok().map(|figures| median(figures))
    }
}

impl Section {
    pub(crate) fn new(scene: &Scene, rows: Vec<Row>) -> Section {
        Section {
            name: scene.name.clone(),
            title: scene.title.clone(),
            unit: scene.unit,
            more_is_better: scene.more_is_better,
            rows,
        }
    }

    fn baselines(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_baseline)
    }

    /// Each baseline over `row`, round by round, the median of that.
    fn ratios(&self, row: &Row) -> impl Iterator<Item = Option<f64>> {
        self.baselines().map(|baseline| {
            let (ours, theirs) = (baseline.figures.as_ref().ok()?, row.figures.as_ref().ok()?);
            let quotients = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
            Some(median(&quotients.collect::<Vec<_>>()))
        })
    }

    pub(crate) fn markdown(&self) -> String {
        let better = if self.more_is_better { "more" } else { "less" };
        let mut text = format!("**{}** (`{}`; {better} is better)\n\n", self.title, self.name);
        let _ = write!(text, "| | {} | least to most |", self.unit);
        for baseline in self.baselines() {
            let _ = write!(text, " {} / it |", baseline.name);
        }
        let _ = writeln!(text, "\n|---|---|---|{}", "---|".repeat(self.baselines().count()));
        for row in &self.rows {
            let _ = match &row.figures {
                Err(reason) => write!(text, "| {} | skipped: {reason} | |", row.name),
                Ok(figures) => {
                    let (least, most) = bounds(figures);
                    let [middle, least, most] = [median(figures), least, most].map(rounded);
                    write!(text, "| {} | {middle} | {least} to {most} |", row.name)
                }
            };
            for ratio in self.ratios(row) {
                let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
                let _ = write!(text, " {ratio} |");
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn tsv(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let Ok(figures) = &row.figures else { continue };
            let ((least, most), middle) = (bounds(figures), median(figures));
            let (name, contender, unit) = (&self.name, &row.name, self.unit);
            let _ = write!(text, "{name}\t{contender}\t{unit}\t{middle:.3}\t{least:.3}\t{most:.3}");
            for ratio in self.ratios(row) {
                let _ = write!(text, "\t{:.3}", ratio.unwrap_or(f64::NAN));
            }
            text.push('\n');
        }
        text
    }
}

fn bounds(figures: &[f64]) -> (f64, f64) {
    figures
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), figure| (least.min(*figure), most.max(*figure)))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// Three digits that say something, thousands apart.
pub(crate) fn rounded(figure: f64) -> String {
    if figure < 10.0 {
        return format!("{figure:.2}");
    }
    if figure < 1000.0 {
        return format!("{figure:.1}");
    }
    let step = 10_f64.powi(figure.log10() as i32 - 2);
    let digits = format!("{:.0}", (figure / step).round() * step);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
