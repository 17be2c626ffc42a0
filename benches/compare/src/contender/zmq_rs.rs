//! zmq.rs (`zeromq`): ZMTP in Rust on tokio, one thread that does its own I/O.

use std::error::Error;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use zeromq::{DealerSocket, PullSocket, PushSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::job::{Job, Meter, NEVER, Scene, Trips, say_endpoint};

pub(crate) fn run(job: &Job) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        for _ in 0..job.timers {
            tokio::task::spawn_local(tokio::time::sleep(NEVER));
        }
        for _ in 0..job.idle {
            idle().await?;
        }
        match job.scene {
            Scene::Hot => Err("zmq.rs has no inproc transport".into()),
            Scene::Stream => receive(job).await,
            Scene::Trip => trip(job).await,
        }
    })
}

/// A task for an idle socket, over tcp with its silent peer, as there is no inproc transport.
async fn idle() -> Result<(), Box<dyn Error>> {
    let (mut pull, mut push) = (PullSocket::new(), PushSocket::new());
    let endpoint = pull.bind("tcp://127.0.0.1:0").await?;
    push.connect(&endpoint.to_string()).await?;
    tokio::task::spawn_local(async move {
        let _peer = push;
        pull.recv().await.map(drop)
    });
    Ok(())
}

async fn receive(job: &Job) -> Result<(), Box<dyn Error>> {
    let mut pull = PullSocket::new();
    say_endpoint(&pull.bind("tcp://127.0.0.1:0").await?.to_string());
    let mut meter = Meter::new(job);
    loop {
        let message = pull.recv().await?;
        if meter.take(message.get(0).ok_or("a frame")?) {
            return Ok(());
        }
    }
}

async fn trip(job: &Job) -> Result<(), Box<dyn Error>> {
    let mut dealer = DealerSocket::new();
    say_endpoint(&dealer.bind("tcp://127.0.0.1:0").await?.to_string());
    let mut trips = Trips::new(job);
    loop {
        dealer.recv().await?;
        if !trips.next() {
            break;
        }
        dealer.send(ZmqMessage::from(trips.payload.clone())).await?;
    }
    dealer.send(ZmqMessage::from(Vec::new())).await?;
    Ok(())
}
