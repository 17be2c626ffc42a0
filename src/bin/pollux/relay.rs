//! The relay's part of the command line: `broker --follow`.

use clap::Args;
use pollux::clone::relay::RelayConfig;
use pollux::node::BrokerOptions;

use crate::endpoint::servers;
use crate::subtree::{Bytes, subtree_parser};

/// What makes a broker a relay.
#[derive(Debug, Clone, Args)]
pub(crate) struct RelayArgs {
    /// Be a relay: serve what the broker at this first endpoint has, and forward changes to it;
    /// of several (pollux://HOST:PORT,HOST:PORT), the one that serves
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "pair", value_parser = servers)]
    pub(crate) follow: Option<String>,
    /// Serve only keys that begin so, as /a/b/ [default: all]
    #[arg(long, requires = "follow", value_name = "SUBTREE", value_parser = subtree_parser())]
    pub(crate) subtree: Option<Bytes>,
}

impl RelayArgs {
    /// Puts them where the broker looks for them.
    pub(crate) fn apply(&self, options: &mut BrokerOptions) {
        let Some(follow) = &self.follow else { return };
        let mut relay = RelayConfig::new(follow.split(',').map(str::to_owned).collect());
        if let Some(Bytes(subtree)) = &self.subtree {
            relay.subtree.clone_from(subtree);
        }
        options.follow = Some(relay);
    }
}
