//! From an accepted login to the user's own `net`: two things must come together, the frozen
//! connection from strangers' `net` and the helper's "I am the user now". SUCCESS goes out only then.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use agent_helper::frame::MonitorToHelper;
use agent_helper::link;
use agent_helper::wire::Bytes;
use zeroize::Zeroize;

use super::aftermath::Aftermath;
use super::connection::{Attempt, Connection, Done, HandOver, Live, LoggedUser, Phase};
use super::file_events::FileLog;
use super::helpers::HelperStage;
use super::ids::{ConnectionKey, NetId};
use super::nets::Role;
use super::penalties::Conduct;
use super::policy;
use super::rate::Rate;
use super::rights::CommandsDiffer;
use super::setup::connection_options;
use super::timers::Deadline;
use super::{Monitor, log as lines};
use crate::frames::ToNet;
use crate::limits::{
    EXPECTED_NETS_MAX, FROZEN_MAX_BYTES, IDLE_NET_LIFETIME_MS, RESOLVERS_BURST,
    RESOLVERS_PER_SECOND, TERMINALS_BURST, TERMINALS_PER_SECOND,
};
use crate::logging::LOGIN;

impl Monitor {
    /// A login of this user may follow: its `net` comes up while keys are read. At most one for each
    /// user waits, and few in all.
    pub(super) fn expect_user(&mut self, uid: u32, name: &[u8]) {
        if !self.nets.has_user(uid) && self.nets.expected() < EXPECTED_NETS_MAX {
            let _ = self.start_user_net(uid, name);
        }
    }

    fn start_user_net(&mut self, uid: u32, name: &[u8]) -> Option<NetId> {
        match self.nets.start_user(&self.host, &self.poller, uid, name) {
            Ok(id) => {
                self.watch_hello(id);
                self.net_is_idle(id);
                Some(id)
            }
            Err(error) => {
                log::error!("a user's net could not be started: {error}");
                None
            }
        }
    }

    /// All methods succeeded: freeze, become, hand over.
    pub(super) fn login_accepted(&mut self, key: ConnectionKey) {
        if self.has_too_many_logins(key) {
            let text = b"You are logged in as often as this server permits.\r\n";
            self.send_banner(key, text);
            return self.refuse_request(key, Some("max-logins-per-user"));
        }
        let prepared = self.prepare_hand_over(key);
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match prepared {
            Ok((hand_over, helper_end)) => {
                let frame = MonitorToHelper::Accepted {
                    policy: hand_over.policy.clone(),
                };
                connection.conduct = Conduct::Good;
                let (net, number) = (connection.net, connection.number);
                connection.enter(Phase::HandingOver(Box::new(hand_over)));
                super::trace::phase(key, connection);
                self.nets
                    .send(&self.poller, net, number, &ToNet::AuthSuccess, &[]);
                let Some(helper) = connection.helper.as_mut() else {
                    return self.login_failed_late(key, "the helper is gone");
                };
                helper.accepted = true;
                if helper.stage == HelperStage::Waiting {
                    helper.stage = HelperStage::Accepted;
                }
                if let Err(error) = helper.send(&self.poller, key, &frame, &[helper_end.as_fd()]) {
                    self.login_failed_late(key, &error.to_string());
                }
            }
            Err(why) => {
                log::error!("a login could not be handed over: {why}");
                self.refuse_request(key, Some("hand-over"));
            }
        }
    }

    /// MaxLoginsPerUser: logins that were accepted and are not over. They are not before all of their
    /// processes are that have to be: a client that comes and goes would leave more than was permitted.
    fn has_too_many_logins(&mut self, key: ConnectionKey) -> bool {
        let Some(attempt) = self.connections.get_mut(&key).and_then(|it| it.attempt()) else {
            return false;
        };
        let (uid, limit) = (attempt.account.uid, attempt.options.max_logins_per_user);
        let is_one = |connection: &&Connection| match &connection.phase {
            Phase::Live(live) => live.login.uid == uid,
            Phase::HandingOver(hand_over) => hand_over.login.uid == uid,
            _ => false,
        };
        if limit == u32::MAX {
            return false;
        }
        let live = self.connections.values().filter(is_one).count();
        let farewells = self.farewells.values();
        let told_of = farewells.filter(|farewell| farewell.is_of(uid)).count();
        let left = self.aftermaths.of_user(uid);
        live + told_of + left >= usize::try_from(limit).unwrap_or(usize::MAX)
    }

    fn prepare_hand_over(
        &mut self,
        key: ConnectionKey,
    ) -> Result<(HandOver, std::os::fd::OwnedFd), String> {
        let connection = self.connections.get_mut(&key).ok_or("it is gone")?;
        let ends = connection.ends;
        let generation = Rc::clone(&connection.generation);
        let told = Rc::clone(&connection.options);
        let attempt = connection.attempt().ok_or("it is not authenticating")?;
        let records = self.host.records(&generation.options);
        let policy = policy::build(&self.host, attempt, ends, &records)
            .map_err(|CommandsDiffer| "its keys force different commands".to_owned())?;
        let Attempt {
            account,
            options,
            done,
            ..
        } = &*attempt;
        let login = LoggedUser {
            name: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
        };
        let done = done.clone();
        // What Match User says of rekeying and keep-alives holds from now on; algorithms and host
        // keys stay those that the connection began with.
        let mut now_told = connection_options(options, &generation.host_keys);
        now_told.setup.server_version = told.setup.server_version.clone();
        let (session, helper_end) = link::pair().map_err(|error| error.to_string())?;
        let target = self
            .user_net(&login, &policy::rights_digest(&policy))
            .ok_or("no net for it")?;
        let hand_over = HandOver {
            login,
            policy,
            options: Rc::new(now_told),
            target,
            session,
            ready: false,
            frozen: None,
            done,
        };
        Ok((hand_over, helper_end))
    }

    /// The `net` of this user and these rights.
    fn user_net(&mut self, login: &LoggedUser, rights: &[u8]) -> Option<NetId> {
        let id = match self.nets.find_user(login.uid, rights) {
            Some(id) => id,
            None => self.start_user_net(login.uid, &login.name)?,
        };
        let net = self.nets.get_mut(id)?;
        net.role = Role::User {
            uid: login.uid,
            rights: Some(rights.to_vec()),
        };
        // It must not end of idleness between now and the hand-over.
        self.timers.cancel(net.idle.take());
        Some(id)
    }

    /// The frozen connection arrived.
    pub(super) fn frozen(&mut self, key: ConnectionKey, state: Bytes) {
        if state.len() > FROZEN_MAX_BYTES {
            return self.attack(key, "a frozen connection of an impossible size");
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if let Phase::HandingOver(hand_over) = &mut connection.phase {
            hand_over.frozen = Some(state);
            self.adopt(key);
        }
    }

    /// The helper is the user.
    pub(super) fn helper_is_ready(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if let Phase::HandingOver(hand_over) = &mut connection.phase {
            hand_over.ready = true;
            self.adopt(key);
        }
    }

    /// Hands over as soon as both are there.
    fn adopt(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let Phase::HandingOver(hand_over) = &mut connection.phase else {
            return;
        };
        if !hand_over.ready || hand_over.frozen.is_none() {
            return;
        }
        let target = hand_over.target;
        let Some(net) = self.nets.get_mut(target) else {
            return self.login_failed_late(key, "the user's net is gone");
        };
        net.highest += 1;
        let number = net.highest;
        net.connections.insert(number, key);
        let mut frame = ToNet::Adopt {
            state: hand_over.frozen.take().unwrap_or_default(),
            options: (*hand_over.options).clone(),
            policy: hand_over.policy.clone(),
        };
        let mut descriptors = connection.client.descriptors();
        descriptors.push(hand_over.session.as_fd());
        self.nets
            .send(&self.poller, target, number, &frame, &descriptors);
        if let ToNet::Adopt { state, .. } = &mut frame {
            state.0.zeroize();
        }
        let (old_net, old_number) = (connection.net, connection.number);
        let permit_pty = hand_over.policy.permit_pty;
        let options = Rc::clone(&hand_over.options);
        let login = hand_over.login.clone();
        let done = std::mem::take(&mut hand_over.done);
        let forwarding = &hand_over.policy.forwarding;
        let has_names = forwarding.tcp_local || forwarding.tcp_remote;
        let names = has_names.then(|| hand_over.policy.identity.clone());
        let mut helper = connection.helper.as_mut();
        if let Some(helper) = &mut helper {
            helper.files = FileLog::of(&hand_over.policy, &login, connection.ends.peer);
        }
        let live = Live {
            login,
            permit_pty,
            names,
            resolvers: Rate::new(RESOLVERS_BURST, RESOLVERS_PER_SECOND, Instant::now()),
            terminals: Rate::new(TERMINALS_BURST, TERMINALS_PER_SECOND, Instant::now()),
            sessions: std::collections::BTreeMap::new(),
            aftermath: helper
                .and_then(|helper| Aftermath::of(&self.host, &hand_over.policy, helper)),
        };
        // Drops our copy of the session socket: its end must be seen.
        drop(connection.enter(Phase::Live(Box::new(live))));
        super::trace::phase(key, connection);
        connection.net = target;
        connection.number = number;
        connection.options = options;
        self.logged_in = true;
        self.timers.cancel(connection.grace.take());
        if let Some(slot) = connection.slot.take() {
            self.startups.give_back(slot);
        }
        if let Some(net) = self.nets.get_mut(old_net) {
            net.connections.remove(&old_number);
        }
        self.log_accepted(key, &done);
        self.end_retired(old_net);
    }

    fn log_accepted(&self, key: ConnectionKey, done: &[Done]) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let Phase::Live(live) = &connection.phase else {
            return;
        };
        // What came before the last one was logged as partial.
        let Some(last) = done.last() else { return };
        log::info!(
            target: LOGIN,
            "Accepted {} for {} from {} ssh2{}",
            last.way.name(),
            lines::user_text(&live.login.name),
            connection.place(),
            lines::key_suffix(last.key.as_deref())
        );
        let methods: Vec<_> = done.iter().map(|done| done.way.name()).collect();
        let key = done.iter().rev().find_map(|done| done.key.as_deref());
        let key = key.map_or("-", |key| key.split(' ').next_back().unwrap_or(key));
        log::info!(
            "{} methods={} key={key} ms={}",
            lines::fields("login", Some(&live.login.name), connection, "accepted"),
            methods.join(","),
            connection.age().as_millis()
        );
    }

    /// The login was accepted, and then something of ours failed: the client never saw SUCCESS.
    pub(super) fn login_failed_late(&mut self, key: ConnectionKey, why: &str) {
        if let Some(connection) = self.connections.get(&key) {
            log::error!("the login from {} failed: {why}", connection.place());
            if let Phase::HandingOver(hand_over) = &connection.phase {
                let user = hand_over.login.name.clone();
                self.refused(key, Some(&user), "hand-over");
            }
        }
        self.cut_off(key);
    }

    /// A user's `net` without connections ends after a while.
    pub(super) fn net_is_idle(&mut self, id: NetId) {
        let Some(net) = self.nets.get_mut(id) else {
            return;
        };
        if matches!(net.role, Role::User { .. }) && net.connections.is_empty() {
            self.timers.cancel(net.idle.take());
            let time = Duration::from_millis(IDLE_NET_LIFETIME_MS);
            net.idle = Some(self.timers.after(time, Deadline::Idle(id)));
        }
    }
}
