//! One contender in one scene, in a process of its own: `compare` starts them in
//! turns and reads the figures that they print.
//!
//! ```text
//! contender LOOP (hot|stream|trip) COUNT SIZE IDLE_SOCKETS TIMERS
//! contender feed ENDPOINT COUNT SIZE GAP_US     sends to a `stream`
//! contender echo ENDPOINT                       answers a `trip`
//! contender serve (pollux|relay)                holds shared state
//! contender version                             of libzmq
//! contender state (libzmq|zmtp|redis|nats) (trip|updates|join) COUNT SIZE ADDRESS...
//! ```
//!
//! What is bound to a port prints `endpoint ...` first; figures are `name=value`.

#[path = "../../../common/bare.rs"]
#[allow(dead_code, reason = "every bench uses its own part of this")]
mod bare;
#[path = "../../../common/measure.rs"]
#[allow(dead_code, reason = "every bench uses its own part of this")]
mod measure;

#[cfg(feature = "calloop")]
mod calloop_fd;
mod feed;
mod floor;
mod job;
mod pollux_loop;
mod serve;
mod state;
#[cfg(feature = "tmq")]
mod tmq_stream;
#[cfg(feature = "zeromq")]
mod zmq_rs;

use std::env;
use std::error::Error;

use pollux::reactor::Backend;

use job::{Job, Scene};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["feed", endpoint, count, size, gap_us] => {
            feed::feed(endpoint, count.parse()?, size.parse()?, gap_us.parse()?);
        }
        ["echo", endpoint] => feed::echo(endpoint),
        ["version"] => {
            let (major, minor, patch) = zmq::version();
            println!("libzmq {major}.{minor}.{patch}");
        }
        ["serve", kind] => serve::serve(kind)?,
        ["state", kind, scene, count, size, ref address @ ..] => {
            state::run(kind, scene, count.parse()?, size.parse()?, address)
                .map_err(|error| -> Box<dyn Error> { error })?;
        }
        [kind, scene, count, size, idle, timers] => {
            let scene = Scene::named(scene).ok_or("a scene: hot, stream or trip")?;
            let (count, size) = (count.parse()?, size.parse()?);
            let (idle, timers) = (idle.parse()?, timers.parse()?);
            run(kind, &Job::new(scene, count, size, idle, timers))?;
        }
        _ => return Err("what to do; see the head of contender/main.rs".into()),
    }
    Ok(())
}

fn run(kind: &str, job: &Job) -> Result<(), Box<dyn Error>> {
    let is_trip = job.scene == Scene::Trip;
    match kind {
        "bare" if is_trip => floor::bare_trip(job),
        "bare" => floor::bare(job),
        "zmq_poll" if is_trip => floor::zmq_poll_trip(job),
        "zmq_poll" => floor::zmq_poll(job),
        "pollux" if is_trip => pollux_loop::trip(job, Backend::Epoll)?,
        "pollux" => pollux_loop::receive(job, Backend::Epoll)?,
        "pollux_zmq_poll" if is_trip => pollux_loop::trip(job, Backend::ZmqPoll)?,
        "pollux_zmq_poll" => pollux_loop::receive(job, Backend::ZmqPoll)?,
        #[cfg(feature = "calloop")]
        "calloop" if is_trip => calloop_fd::trip(job)?,
        #[cfg(feature = "calloop")]
        "calloop" => calloop_fd::receive(job)?,
        #[cfg(feature = "tmq")]
        "tmq" => tmq_stream::run(job)?,
        #[cfg(feature = "zeromq")]
        "zmq_rs" => zmq_rs::run(job)?,
        _ => return Err(format!("{kind} is not built in").into()),
    }
    Ok(())
}
