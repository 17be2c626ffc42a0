//! A ratio as measured, and what it is held against.

use std::fmt;

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
    /// This much or less, or else what the words say.
    AtMostUnless(f64, &'static str),
    /// Less than this.
    Below(f64),
    /// It is there to compare others with.
    None,
}

impl Target {
    fn is_met(self, outcome: &Outcome) -> bool {
        match self {
            Target::AtLeast(least) => outcome.ratio >= least,
            Target::AtMost(most) => outcome.ratio <= most,
            Target::AtMostUnless(most, _) => outcome.ratio <= most || outcome.excused,
            Target::Below(bound) => outcome.ratio < bound,
            Target::None => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(least) => write!(f, ">= {least}"),
            Target::AtMost(most) => write!(f, "<= {most}"),
            Target::AtMostUnless(most, unless) => write!(f, "<= {most}, or {unless}"),
            Target::Below(bound) => write!(f, "< {bound}"),
            Target::None => f.write_str("no target"),
        }
    }
}

/// One ratio with the figures it comes from.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its name in the table and in the file.
    pub(crate) name: &'static str,
    /// The ratio, or the figure where there is nothing to divide by.
    pub(crate) ratio: f64,
    /// Whether the other half of [`Target::AtMostUnless`] holds.
    pub(crate) excused: bool,
    /// The two figures behind it, for the reader.
    pub(crate) figures: String,
}

impl Outcome {
    /// A ratio with a single target.
    pub(crate) fn new(name: &'static str, ratio: f64, figures: String) -> Outcome {
        Outcome { name, ratio, excused: false, figures }
    }

    /// The line of the table.
    pub(crate) fn line(&self, target: &Target) -> String {
        let verdict = if target.is_met(self) { "ok" } else { "MISSED" };
        let Outcome { name, ratio, figures, .. } = self;
        format!("{name:<26} {ratio:>8.3} ({target}) {verdict:<6} {figures}")
    }
}
