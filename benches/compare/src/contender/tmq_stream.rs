//! tmq: streams of messages on tokio, one thread.

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use tmq::{AsZmqSocket, Multipart};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::bare::Bare;
use crate::job::{Job, Meter, NEVER, Scene, Trips, idle_address};

pub(crate) fn run(job: &Job) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let _silent = crowd(job)?;
        match job.scene {
            Scene::Trip => trip(job).await,
            Scene::Hot | Scene::Stream => receive(job).await,
        }
    })
}

/// A task for each idle socket and each timer.
fn crowd(job: &Job) -> Result<Vec<Bare>, Box<dyn Error>> {
    let mut silent = Vec::new();
    for index in 0..job.idle {
        let mut pull = tmq::pull(&job.context).bind(&idle_address(index))?;
        silent.push(job.silent(index));
        tokio::task::spawn_local(async move { pull.next().await.is_some() });
    }
    for _ in 0..job.timers {
        tokio::task::spawn_local(tokio::time::sleep(NEVER));
    }
    Ok(silent)
}

async fn receive(job: &Job) -> Result<(), Box<dyn Error>> {
    let mut pull = tmq::pull(&job.context).set_rcvhwm(job.hwm()).bind(job.address())?;
    let endpoint = pull.get_socket().get_last_endpoint()?.map_err(|_| "an endpoint")?;
    let _peer = job.begin(&endpoint);
    let mut meter = Meter::new(job);
    while let Some(message) = pull.next().await {
        if meter.take(&message?[0]) {
            break;
        }
    }
    Ok(())
}

async fn trip(job: &Job) -> Result<(), Box<dyn Error>> {
    let mut dealer = tmq::dealer(&job.context).set_linger(1000).bind(job.address())?;
    let endpoint = dealer.get_socket().get_last_endpoint()?.map_err(|_| "an endpoint")?;
    job.begin(&endpoint);
    let mut trips = Trips::new(job);
    while let Some(message) = dealer.next().await {
        message?;
        if !trips.next() {
            break;
        }
        dealer.send(Multipart::from(vec![&trips.payload[..]])).await?;
    }
    dealer.send(Multipart::from(vec![&b""[..]])).await?;
    Ok(())
}
