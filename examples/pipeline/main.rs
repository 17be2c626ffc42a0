//! Work dealt out in parallel and collected: the Guide's taskvent, taskwork2 and tasksink2. When
//! all is done the sink tells the workers to end.
//!
//!     cargo run --example pipeline -- task_sink [RESULTS] [CONTROL]
//!     cargo run --example pipeline -- task_work [TASKS] [RESULTS] [CONTROL]    (several)
//!     cargo run --example pipeline -- task_vent [TASKS] [RESULTS] [COUNT]

mod task_sink;
mod task_vent;
mod task_work;

use std::io;

const TASKS: &str = "tcp://127.0.0.1:5557";
const RESULTS: &str = "tcp://127.0.0.1:5558";
const CONTROL: &str = "tcp://127.0.0.1:5559";

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role = args.next();
    let mut arg = |default: &str| args.next().unwrap_or(default.into());
    match role.as_deref() {
        Some("task_sink") => task_sink::run(&arg(RESULTS), &arg(CONTROL)),
        Some("task_work") => task_work::run(&arg(TASKS), &arg(RESULTS), &arg(CONTROL)),
        Some("task_vent") => {
            let (tasks, results) = (arg(TASKS), arg(RESULTS));
            let count = arg("100").parse().map_err(io::Error::other)?;
            task_vent::run(&tasks, &results, count)
        }
        _ => {
            eprintln!("usage: pipeline task_sink|task_work|task_vent [ENDPOINT] ...");
            std::process::exit(1)
        }
    }
}
