//! Resolvers: processes that look names up for a login, with its user's rights.
//!
//! The helper asks for one when a client names a host; what it asks the resolver and what that
//! answers pass by this process, which never sees the name.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use agent_helper::forward_frame::ResolverSetup;
use agent_helper::frame::MonitorToHelper;
use agent_helper::link::{self, Link};

use super::Monitor;
use super::connection::{Live, Phase};
use super::host::Host;
use super::ids::ConnectionKey;
use crate::launch::{Launch, launch};

impl Monitor {
    /// The helper wants a resolver.
    pub(super) fn start_resolver(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let Phase::Live(live) = &mut connection.phase else {
            return;
        };
        // Each ends by itself; who asks for more than a client could need gets none.
        let permitted = live.names.is_some() && live.resolvers.take(Instant::now());
        let started = permitted
            .then(|| start(&self.host, live))
            .and_then(|started| {
                started
                    .inspect_err(|error| log::error!("no resolver: {error}"))
                    .ok()
            });
        let Some(helper) = connection.helper.as_mut() else {
            return;
        };
        let sent = match &started {
            Some(end) => helper.send(
                &self.poller,
                key,
                &MonitorToHelper::Resolver,
                &[end.as_fd()],
            ),
            None => helper.send(&self.poller, key, &MonitorToHelper::NoResolver, &[]),
        };
        if let Err(error) = sent {
            self.helper_lost(key, &error.to_string());
        }
    }
}

/// Starts one; gives the helper's end of its link. It is collected as every child is.
fn start(host: &Host, live: &Live) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = link::pair()?;
    let setup = ResolverSetup {
        identity: live.names.clone().unwrap_or_default(),
        change_identity: host.as_root,
    };
    let link = Link::new(ours);
    link.send(0, &setup, &[], false)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let title = CString::new([b"agent: resolve [", live.login.name.as_slice(), b"]"].concat())?;
    launch(&Launch {
        descriptors: &[theirs.as_fd()],
        new_session: true,
        oom_score_adj: host.oom_score_adj,
        ..Launch::new(host.own.as_fd(), &[&title])
    })?;
    Ok(link.into_socket())
}
