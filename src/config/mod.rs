//! sshd_config(5): reading it, what it means, and what of it a connection gets.
//!
//! [`reader`] turns files into sections of [`settings`], each under its `Match` conditions; here
//! they are combined, and [`options`] fills in the defaults. Deviations from OpenSSH are in
//! docs/config.md.

#![forbid(unsafe_code)]

pub mod algorithms;
mod condition;
mod dump;
pub mod forwarding;
mod glob;
pub mod keywords;
mod lex;
mod logins;
mod methods;
pub mod options;
pub mod penalties;
mod reader;
mod settings;
mod subsystems;
#[cfg(test)]
mod tests;
pub mod value;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use condition::Condition;
pub use options::Options;
use reader::{Reader, Section};
use settings::{Combine, Settings};
use value::{AddressFamily, ListenAddress};

/// Our software version, as in the identification line and for `Match Version`.
///
/// Clients take from its first letters what they can ask: OpenSSH's says eow@openssh.com and
/// no-more-sessions@openssh.com only to such, and asyncssh, ssh2 and WinSCP send the two paths of a
/// symbolic link in the order of OpenSSH's sftp-server only to such. We do as that does.
pub const SOFTWARE_VERSION: &str = concat!("OpenSSH_compatible_agent_", env!("CARGO_PKG_VERSION"));

/// A configuration that passed every check: the settings with the conditions they stand under.
#[derive(Debug, Clone)]
pub struct Config {
    sections: Vec<Section>,
    /// The main part and what stands under `Match All`.
    global: Settings,
    listen: Vec<SocketAddr>,
    as_root: bool,
}

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
    /// `FILE line N`, `FILE` or `command line`.
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

impl Config {
    /// Reads `path` (`none` for the built-in defaults), or the default file for root or an ordinary
    /// user; `overrides` (keyword, value) are the command line's and win.
    ///
    /// # Errors
    ///
    /// All mistakes at once.
    pub fn load(
        path: Option<&Path>,
        overrides: &[(String, String)],
        as_root: bool,
    ) -> Result<Loaded, Vec<ConfigError>> {
        let path = match path {
            Some(path) if path == Path::new("none") => None,
            Some(path) => Some(path.to_owned()),
            None => default_file(as_root),
        };
        let mut reader = Reader::new(as_root);
        reader.overrides(overrides);
        if let Some(path) = &path {
            reader.main_file(path);
        }
        let (config, warnings) = Self::combine(reader)?;
        Ok(Loaded {
            config,
            warnings,
            path,
        })
    }

    /// Reads a text that stands in no file: for tests and fuzzing.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn from_text(text: &[u8], as_root: bool) -> Result<Loaded, Vec<ConfigError>> {
        let mut reader = Reader::new(as_root);
        reader.text(Path::new("text"), text);
        let (config, warnings) = Self::combine(reader)?;
        Ok(Loaded {
            config,
            warnings,
            path: None,
        })
    }

    fn combine(reader: Reader) -> Result<(Self, Vec<String>), Vec<ConfigError>> {
        let Reader {
            sections,
            mut errors,
            warnings,
            as_root,
            ..
        } = reader;
        let mut global = Settings::default();
        for section in sections.iter().filter(|section| section.is_global()) {
            global.keep_first(&section.settings);
        }
        let listen = listen(&global, as_root, &mut errors);
        commands_have_users(&global, &mut errors);
        if errors.is_empty() {
            Ok((
                Self {
                    sections,
                    global,
                    listen,
                    as_root,
                },
                warnings,
            ))
        } else {
            Err(errors)
        }
    }

    /// The values outside of `Match`.
    pub fn global(&self) -> Options {
        Options::new(&self.global, &self.listen, self.as_root)
    }

    /// Whether anything depends on the names of a user's groups: looking them up can be slow.
    pub fn asks_for_groups(&self) -> bool {
        self.sections.iter().any(|section| {
            let asked = section.conditions.iter().any(Condition::asks_for_groups);
            let lists = [
                &section.settings.allow_groups,
                &section.settings.deny_groups,
            ];
            asked || lists.iter().any(|list| !list.0.is_empty())
        })
    }

    /// How anybody may sign: what `options` accept, and what `Match` blocks do. Clients ask before they
    /// say who they are.
    pub fn user_key_algorithms(&self, options: &Options) -> Vec<String> {
        let mut all = options.pubkey_accepted_algorithms.clone();
        let lists = self.sections.iter();
        for name in lists
            .filter_map(|section| section.settings.pubkey_accepted_algorithms.as_ref())
            .flatten()
        {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// The values for one connection: those of the `Match` blocks that hold for `subject`, else the
    /// global ones.
    pub fn effective(&self, subject: &Subject<'_>) -> Options {
        Options::new(&self.settings_for(subject), &self.listen, self.as_root)
    }

    /// The effective values as `keyword value` lines, in the manner of `sshd -T`.
    pub fn dump(&self, subject: Option<&Subject<'_>>) -> String {
        let settings = match subject {
            Some(subject) => self.settings_for(subject),
            None => self.global.clone(),
        };
        let options = Options::new(&settings, &self.listen, self.as_root);
        dump::dump(&settings, &options)
    }

    fn settings_for(&self, subject: &Subject<'_>) -> Settings {
        let mut matching = Settings::default();
        for section in self
            .sections
            .iter()
            .filter(|section| !section.conditions.is_empty())
        {
            if section
                .conditions
                .iter()
                .all(|condition| condition.holds(subject))
            {
                matching.keep_first(&section.settings);
            }
        }
        let mut settings = self.global.clone();
        settings.replace_by(&matching);
        settings
    }
}

impl Section {
    fn is_global(&self) -> bool {
        self.conditions.iter().all(Condition::is_all)
    }
}

/// The file to read where none is named.
fn default_file(as_root: bool) -> Option<PathBuf> {
    let candidates = if as_root {
        vec![
            PathBuf::from("/etc/agent/sshd_config"),
            PathBuf::from("/etc/ssh/sshd_config"),
        ]
    } else {
        options::user_directory("XDG_CONFIG_HOME", ".config")
            .map(|directory| directory.join("agent/sshd_config"))
            .into_iter()
            .collect()
    };
    // What cannot be looked at is taken, so that the reader says why it cannot be read.
    candidates
        .into_iter()
        .find(|path| path.try_exists().unwrap_or(true))
}

/// A command without its user would not be run, and nobody would be told.
fn commands_have_users(global: &Settings, errors: &mut Vec<ConfigError>) {
    for (keyword, command, user) in [
        (
            "AuthorizedKeysCommand",
            &global.authorized_keys_command,
            &global.authorized_keys_command_user,
        ),
        (
            "AuthorizedPrincipalsCommand",
            &global.authorized_principals_command,
            &global.authorized_principals_command_user,
        ),
    ] {
        if matches!(command, Some(Some(_))) && !matches!(user, Some(Some(_))) {
            errors.push(ConfigError {
                place: keyword.to_owned(),
                message: format!("needs {keyword}User: an account that it runs as"),
            });
        }
    }
}

/// The addresses to listen on; each ListenAddress without a port stands for all of `Port`.
fn listen(global: &Settings, as_root: bool, errors: &mut Vec<ConfigError>) -> Vec<SocketAddr> {
    let default_port = if as_root { 22 } else { 2222 };
    let ports = match global.ports.0.as_slice() {
        [] => vec![default_port],
        ports => ports.to_vec(),
    };
    let family = global.address_family.unwrap_or(AddressFamily::Any);
    let any = ["0.0.0.0", "::"]
        .map(|host| ListenAddress {
            host: host.to_owned(),
            port: None,
        })
        .into_iter()
        .filter(|any| any.host.parse().is_ok_and(|address| family.admits(address)))
        .collect();
    let wanted = match global.listen_addresses.0.as_slice() {
        [] => any,
        wanted => wanted.to_vec(),
    };
    let mut listen = Vec::new();
    for address in wanted {
        match address.resolve(&ports, family) {
            Ok(found) => {
                for address in found {
                    if !listen.contains(&address) {
                        listen.push(address);
                    }
                }
            }
            Err(phrase) => errors.push(ConfigError {
                place: "ListenAddress".to_owned(),
                message: phrase,
            }),
        }
    }
    listen
}
