//! A broker on a thread of its own, for as long as it is measured.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use pollux::node::{BrokerNode, BrokerOptions};
use pollux::reactor::{Flow, Reactor, Sender};
use pollux::socket::ZmqContext;

use super::args::BenchArgs;

/// Deletions that a broker remembers in a soak. Keys that expire would fill the default
/// of 100,000 for many minutes, which looks like a leak and is none.
const SOAK_HISTORY: usize = 5_000;

/// And uuids: those of the default window of a million get their memory one by one.
const SOAK_UUIDS: usize = 1 << 16;

struct App {
    broker: BrokerNode,
}

/// Ends with this.
#[derive(Debug)]
pub(super) struct BrokerThread {
    endpoint: String,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl BrokerThread {
    /// A broker at free ports of the loopback interface, which takes values of
    /// the size to be measured.
    pub(super) fn start(args: &BenchArgs) -> io::Result<BrokerThread> {
        let mut options = BrokerOptions::default();
        let limits = &mut options.config.limits;
        limits.max_value = limits.max_value.max(args.value_size);
        if args.churn > 0 {
            options.config.store.history = SOAK_HISTORY;
            options.config.recent_count = SOAK_UUIDS;
        }
        let (ready, started) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || serve(options, &ready))?;
        let (endpoint, stop) =
            started.recv().map_err(|_| io::Error::other("the broker's thread ended"))??;
        Ok(BrokerThread { endpoint, stop, thread: Some(thread) })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for BrokerThread {
    fn drop(&mut self) {
        // It has ended already if it does not take this.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Started = io::Result<(String, Sender<()>)>;

fn serve(options: BrokerOptions, ready: &SyncSender<Started>) {
    let (mut reactor, mut app) = match make(options) {
        Ok(made) => made,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let stop = reactor.channel(1, |_: &mut App, _, ()| Ok(Flow::Stop));
    let stop = match stop {
        Ok(stop) => stop,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let endpoint = app.broker.endpoints().snapshots.clone();
    if ready.send(Ok((endpoint, stop))).is_ok()
        && let Err(error) = reactor.run(&mut app)
    {
        log::error!("the broker's loop ended: {error}");
    }
}

fn make(options: BrokerOptions) -> io::Result<(Reactor<App>, App)> {
    let context = ZmqContext::builder().zero_copy_receive(false).build()?;
    let mut reactor = Reactor::new()?;
    let broker = BrokerNode::bind(&context, "tcp://127.0.0.1:*", options)?;
    let mut app = App { broker };
    BrokerNode::attach(&mut reactor, &mut app, |app| &mut app.broker)?;
    Ok((reactor, app))
}
