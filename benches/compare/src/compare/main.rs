//! Pollux beside its rivals: starts each contender in a process of its own, in turns,
//! and prints one table. `benches/compare/run` builds everything and calls this.
//!
//! ```text
//! compare OUT_DIR [SCENE...]
//! ```
//!
//! `OUT_DIR` gets the table and the figures of each scene with a plot, and all of them in
//! `table.md` and `figures.tsv`; a run of some scenes replaces only theirs. A scene is
//! named in full or by the beginning of its name.

mod child;
mod plot;
mod scenes;
mod servers;
mod strace;
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use scenes::Scene;
use table::{Row, Section};

/// Each contender's turns in a scene, after one that does not count.
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let out = PathBuf::from(arguments.next().ok_or("usage: compare OUT_DIR [SCENE...]")?);
    let wanted: Vec<String> = arguments.collect();
    let rounds = match env::var("ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => ROUNDS,
    };
    let all = scenes::all();
    let is_wanted = |scene: &Scene| {
        wanted.is_empty() || wanted.iter().any(|wanted| scene.name.starts_with(wanted.as_str()))
    };
    if !all.iter().any(is_wanted) {
        let names: Vec<&str> = all.iter().map(|scene| scene.name.as_str()).collect();
        return Err(format!("no such scene; there are {}", names.join(", ")).into());
    }
    fs::create_dir_all(&out)?;
    for scene in all.iter().filter(|scene| is_wanted(scene)) {
        eprintln!("{} ...", scene.name);
        // System calls are no matter of the weather.
        let section = measure(scene, if scene.name.starts_with("cold") { 2 } else { rounds });
        println!("{}", section.markdown());
        for (ending, text) in
            [("md", section.markdown()), ("tsv", section.tsv()), ("svg", plot::svg(&section))]
        {
            fs::write(out.join(format!("{}.{ending}", scene.name)), text)?;
        }
        // What is there so far is of use if the rest does not come.
        join(&out, &all, "md", "table.md", "")?;
        join(
            &out,
            &all,
            "tsv",
            "figures.tsv",
            "scene\tcontender\tunit\tmedian\tleast\tmost\tratios\n",
        )?;
    }
    Ok(())
}

/// Puts the scenes' files together, those of earlier runs too.
fn join(out: &Path, all: &[Scene], ending: &str, whole: &str, head: &str) -> io::Result<()> {
    let mut text = head.to_owned();
    for scene in all {
        if let Ok(part) = fs::read_to_string(out.join(format!("{}.{ending}", scene.name))) {
            text += &part;
            if ending == "md" {
                text.push('\n');
            }
        }
    }
    fs::write(out.join(whole), text)
}

/// A B C, B C A, C A B ...: who begins changes from round to round. Who fails once
/// takes no further part, and the table says why.
fn measure(scene: &Scene, rounds: usize) -> Section {
    let mut contenders: Vec<_> =
        scene.contenders.iter().map(|contender| contender.start()).collect();
    let mut figures = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let Ok(contender) = &mut contenders[index] else { continue };
            match contender.figure() {
                Ok(figure) if round > 0 => figures[index].push(figure),
                Ok(_) => {}
                Err(problem) => {
                    eprintln!("  {}: {problem}", scene.contenders[index].name);
                    contenders[index] = Err(problem);
                }
            }
        }
    }
    let rows = scene.contenders.iter().zip(contenders).zip(figures);
    let rows = rows.map(|((contender, state), figures)| Row {
        name: contender.name.clone(),
        is_baseline: contender.is_baseline,
        figures: state.map(|_| figures),
    });
    Section::new(scene, rows.collect())
}
