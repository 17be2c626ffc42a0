//! Pollux beside its rivals: starts each contender in a process of its own, in turns,
//! and prints one table. `benches/compare/run` builds everything and calls this.
//!
//! ```text
//! compare OUT_DIR [SCENE...]
//! ```
//!
//! `OUT_DIR` gets `table.md`, `figures.tsv` and a plot for each scene. A scene is
//! named in full or by the beginning of its name.

mod child;
mod plot;
mod scenes;
mod servers;
mod strace;
mod table;

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

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
    let mut markdown = String::new();
    let mut figures = String::from("scene\tcontender\tunit\tmedian\tleast\tmost\tratio\n");
    for scene in all.iter().filter(|scene| is_wanted(scene)) {
        eprintln!("{} ...", scene.name);
        let section = measure(scene, rounds);
        let table = section.markdown();
        println!("{table}");
        markdown += &table;
        markdown.push('\n');
        figures += &section.tsv();
        fs::write(out.join(format!("{}.svg", scene.name)), plot::svg(&section))?;
        // What is there so far is of use if the rest does not come.
        fs::write(out.join("table.md"), &markdown)?;
        fs::write(out.join("figures.tsv"), &figures)?;
    }
    Ok(())
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
        figures: state.map(|_| figures),
    });
    Section::new(scene, rows.collect())
}
