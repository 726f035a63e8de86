//! sshd_config(5): reading it, what it means, and what of it a connection gets.

pub mod options;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use options::Options;

/// Our software version, as in the identification line and for `Match Version`.
pub const SOFTWARE_VERSION: &str = concat!("agent_", env!("CARGO_PKG_VERSION"));

/// A configuration that passed every check: the directives with the conditions they stand under.
#[derive(Debug, Clone)]
pub struct Config(());

/// What [`Config::load`] found.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// For the log, once: `FILE line N: …`.
    pub warnings: Vec<String>,
    /// The main file; `None` where the built-in defaults hold.
    pub path: Option<PathBuf>,
}

/// A mistake in the configuration: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `FILE line N`, or `command line`.
    pub place: String,
    pub message: String,
}

/// Who a connection is, for `Match`.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `None` before authentication: no User, Group or Invalid-User condition holds then.
    pub user: Option<&'a str>,
    /// Names of all groups of the account, the primary one included.
    pub groups: &'a [String],
    /// The name is not an account of this machine.
    pub invalid_user: bool,
    pub address: IpAddr,
    /// The client's verified host name, only with `UseDNS yes`.
    pub host: Option<&'a str>,
    pub local_address: IpAddr,
    pub local_port: u16,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigError {}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Config {
    /// Reads `path`, or the default file for root or an ordinary user; `overrides` (keyword, value)
    /// are the command line's and win.
    ///
    /// # Errors
    ///
    /// All mistakes at once.
    pub fn load(
        path: Option<&Path>,
        overrides: &[(String, String)],
        as_root: bool,
    ) -> Result<Loaded, Vec<ConfigError>> {
        todo!()
    }

    /// The values outside of `Match`.
    pub fn global(&self) -> Options {
        todo!()
    }

    /// The values for one connection: those of the `Match` blocks that hold for `subject`, else the
    /// global ones.
    pub fn effective(&self, subject: &Subject<'_>) -> Options {
        todo!()
    }
}
