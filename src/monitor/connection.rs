//! One connection as the monitor knows it, from the accepted socket to the end of its last session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_helper::frame::{Identity, Policy};
use agent_helper::wire::Bytes;

use super::aftermath::Aftermath;
use super::allowed::Refusal;
use super::helpers::Helper;
use super::ids::NetId;
use super::keys::KeySearch;
use super::lookup::Lookup;
use super::methods::{Methods, Way};
use super::names::ClientName;
use super::passwords::Asked;
use super::penalties::Conduct;
use super::permit::{Permit, Stage};
use super::rate::Rate;
use super::socket::{Client, Ends, host_text};
use super::startups::Slot;
use super::terminals::Terminal;
use super::timers::TimerId;
use super::verify::Hangs;
use crate::account::Account;
use crate::authorized_keys::KeyOptions;
use crate::config::{Config, Options};
use crate::frames::{ConnectionOptions, ConnectionReport};
use crate::host_keys::HostKey;

/// A configuration with its host keys. Connections keep the one they began with.
#[derive(Debug)]
pub(super) struct Generation {
    pub config: Config,
    pub options: Options,
    pub host_keys: Vec<Arc<HostKey>>,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Which process has it, and under which number.
    pub net: NetId,
    pub number: u32,
    pub client: Client,
    pub ends: Ends,
    pub started: Instant,
    pub generation: Rc<Generation>,
    /// For patterns of host names.
    pub client_name: ClientName,
    /// What its address answers for when it ends.
    pub conduct: Conduct,
    /// LogLevel for it: of the main part, later of the user's Match blocks too.
    pub log_level: log::LevelFilter,
    /// What its `net` was told.
    pub options: Rc<ConnectionOptions>,
    pub permit: Permit,
    pub phase: Phase,
    /// The cookie that the next exchange must hold; used once.
    pub cookie: Option<[u8; 16]>,
    /// A signature is with the worker.
    pub signing: bool,
    /// H of the first exchange, computed here.
    pub session_id: Vec<u8>,
    /// The algorithm that signed the last exchange.
    pub signs_with: Vec<u8>,
    /// Blobs of host keys that were proven: each is once.
    pub proven: Vec<Vec<u8>>,
    /// K_S of the first exchange, for host-bound signatures.
    pub host_key: Vec<u8>,
    pub client_version: Vec<u8>,
    pub grace: Option<TimerId>,
    /// Counts among the unauthenticated connections.
    pub slot: Option<Slot>,
    pub helper: Option<Helper>,
    /// What its `net` told of it last.
    pub report: ConnectionReport,
}

/// Where the connection stands, with what is known only there.
#[derive(Debug)]
pub(super) enum Phase {
    /// No authentication request yet.
    Greeting,
    Authenticating(Box<Attempt>),
    HandingOver(Box<HandOver>),
    Live(Box<Live>),
    /// Told to end.
    Ending {
        timer: TimerId,
        user: Option<LoggedUser>,
    },
}

/// The attempt to log in as one user.
#[derive(Debug)]
pub(super) struct Attempt {
    /// As the client spells it.
    pub user: Vec<u8>,
    /// The account, or the decoy.
    pub account: Account,
    pub groups: Vec<u32>,
    /// Why nobody can log in under this name.
    pub refusal: Option<Refusal>,
    pub options: Rc<Options>,
    pub requests: u32,
    pub failures: u32,
    /// Requests that were answered with "this key would do".
    pub queries: u32,
    pub methods: Methods,
    /// Methods that succeeded, in order.
    pub done: Vec<Done>,
    /// Keys that were accepted; more than one with AuthenticationMethods.
    pub accepted: Vec<AcceptedKey>,
    /// The key that a query found, for the signature that follows.
    pub known: Option<KnownKey>,
    /// What `keyboard-interactive` asked last.
    pub dialog: Option<Dialog>,
    /// The password was right and has expired.
    pub must_change: bool,
    pub expiry: Expiry,
    pub pending: Option<Pending>,
}

/// What ends soon: days, where there are so few that the user is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Expiry {
    pub account_days: Option<i64>,
    pub password_days: Option<i64>,
}

/// A method that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Done {
    pub way: Way,
    /// `ED25519 SHA256:…`; nothing for passwords.
    pub key: Option<String>,
}

/// A question that is with the client.
#[derive(Debug)]
pub(super) struct Dialog {
    /// The request that it answers.
    pub request: Bytes,
    /// For a new password.
    pub changes: bool,
}

/// A key whose signature was verified.
#[derive(Debug, Clone)]
pub(super) struct AcceptedKey {
    /// The key itself, also where a certificate of it was presented: no key counts twice.
    pub key: Vec<u8>,
    /// What was presented, for ExposeAuthInfo.
    pub presented: Vec<u8>,
    /// Of the key's line and of its certificate: all of them hold.
    pub options: Vec<KeyOptions>,
    /// `ED25519 SHA256:…`, for the log.
    pub description: String,
}

/// What a query found.
#[derive(Debug)]
pub(super) struct KnownKey {
    pub blob: Vec<u8>,
    pub options: Vec<KeyOptions>,
    pub at: Instant,
}

/// The request that is being worked on. There is never more than one.
#[derive(Debug)]
pub(super) struct Pending {
    pub arrived: Instant,
    /// Without passwords.
    pub request: Bytes,
    pub way: Way,
    /// What the process that looks at the password was asked.
    pub asked: Asked,
    /// Where the key is looked for.
    pub lookup: Option<Lookup>,
    pub step: Step,
}

impl Pending {
    pub(super) fn new(request: Bytes, way: Way) -> Self {
        Self {
            arrived: Instant::now(),
            request,
            way,
            asked: Asked::Nothing,
            lookup: None,
            step: Step::Queued,
        }
    }
}

#[derive(Debug)]
pub(super) enum Step {
    /// Waits for a free key reader or password check.
    Queued,
    /// A process looks at the password.
    Checking { check: u64 },
    /// The helper's child reads.
    Reading {
        search: Box<KeySearch>,
        pipe: OwnedFd,
        timer: TimerId,
        is_command: bool,
    },
    /// The worker looks at a signature.
    Verifying { hangs: Hangs },
    /// The answer is known and waits for its time.
    Answering { answer: Answer },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Failure,
    TooManyFailures,
}

/// A login that was accepted and is on its way.
#[derive(Debug)]
pub(super) struct HandOver {
    pub login: LoggedUser,
    pub policy: Policy,
    pub options: Rc<ConnectionOptions>,
    pub target: NetId,
    /// The end of the session socket for the user's `net`.
    pub session: OwnedFd,
    /// The helper is the user now.
    pub ready: bool,
    pub frozen: Option<Bytes>,
    /// For the log.
    pub done: Vec<Done>,
}

/// Who is logged in.
#[derive(Debug, Clone)]
pub(super) struct LoggedUser {
    pub name: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug)]
pub(super) struct Live {
    pub login: LoggedUser,
    pub permit_pty: bool,
    /// With whose rights names may be looked up; `None`: nothing that has a name is permitted.
    pub names: Option<Identity>,
    /// Resolvers that may be started.
    pub resolvers: Rate,
    /// Each costs records of its session.
    pub terminals: Rate,
    pub sessions: BTreeMap<u32, Session>,
    /// What is to be done when it is over.
    pub aftermath: Option<Aftermath>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub pid: u32,
    pub terminal: Option<Terminal>,
    pub recorded: bool,
}

impl Connection {
    /// Enters a phase and the stage of the permit table that belongs to it.
    pub(super) fn enter(&mut self, phase: Phase) -> Phase {
        self.permit.enter(match &phase {
            Phase::Greeting => Stage::Accepted,
            Phase::Authenticating(_) => Stage::Authenticating,
            Phase::HandingOver(_) => Stage::HandingOver,
            Phase::Live(_) => Stage::Live,
            Phase::Ending { .. } => Stage::Ending,
        });
        std::mem::replace(&mut self.phase, phase)
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.ends.peer
    }

    /// `ADDRESS port PORT`, as OpenSSH's log lines have it.
    pub(super) fn place(&self) -> String {
        format!(
            "{} port {}",
            host_text(self.ends.peer),
            self.ends.peer.port()
        )
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn attempt(&mut self) -> Option<&mut Attempt> {
        match &mut self.phase {
            Phase::Authenticating(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// Whether the login is complete: log lines say `[preauth]` before.
    pub(super) fn is_live(&self) -> bool {
        matches!(
            self.phase,
            Phase::Live(_) | Phase::Ending { user: Some(_), .. }
        )
    }
}
