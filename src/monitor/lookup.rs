//! Where a credential is looked for, one place after the other: key files, trusted authorities with
//! their principals, the command.
//!
//! The order is OpenSSH's: what is cheap comes first, and the first place that lets the client in
//! wins. An unknown user's decoy has key files only: no command is run for names that anybody makes
//! up.

use std::collections::VecDeque;
use std::rc::Rc;

use agent_helper::frame::MonitorToHelper;
use agent_helper::wire::Bytes;

use super::connection::{Attempt, Connection};
use super::credential::Credential;
use super::ids::ConnectionKey;
use super::key_lines::{Certified, Client, Findings, Found, Judge, Source, Wanted};
use super::key_reading::{Reading, expand};
use super::keys::KeySearch;
use super::socket::{Ends, host_text};
use super::verify::{Check, Hangs};
use super::{Monitor, log as lines, trust};
use crate::account::{self, Account};
use crate::authorized_keys::KeyOptions;
use crate::limits::{KEY_COMMAND_OUTPUT_MAX_BYTES, KEY_FILE_MAX_BYTES};
use crate::ssh::crypto::base64;
use crate::ssh::crypto::certificate::Certificate;

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    credential: Credential,
    client: Client,
    places: VecDeque<Place>,
    /// The certificate's authority signed it.
    signed: bool,
    /// What lets the client in if it did.
    found: Option<Vec<KeyOptions>>,
    /// The reason code if no place lets it in.
    pub refusal: &'static str,
}

#[derive(Debug, Clone)]
enum Place {
    /// AuthorizedKeysFile.
    KeyFiles,
    /// TrustedUserCAKeys has the authority: did it sign? Before anything that the certificate says
    /// is given to a command.
    Signature(Rc<Certified>),
    /// TrustedUserCAKeys has the authority, and the certificate is for the account.
    Trusted(Rc<Certified>),
    /// AuthorizedPrincipalsFile, for a trusted authority.
    PrincipalsFile(Rc<Certified>),
    /// AuthorizedPrincipalsCommand, likewise.
    PrincipalsCommand(Rc<Certified>),
    /// AuthorizedKeysCommand.
    KeysCommand,
}

impl Lookup {
    pub(super) fn new(credential: Credential, client: Client, attempt: &Attempt) -> Self {
        let mut lookup = Self {
            credential,
            client,
            places: VecDeque::from([Place::KeyFiles]),
            signed: false,
            found: None,
            refusal: "key-unknown",
        };
        if let Credential::Certificate(certified) = &lookup.credential {
            let certified = Rc::clone(certified);
            lookup.refusal = "cert-authority-unknown";
            lookup.trust(certified, attempt);
        }
        if attempt.options.authorized_keys_command.is_some() && attempt.refusal.is_none() {
            lookup.places.push_back(Place::KeysCommand);
        }
        lookup
    }

    fn trust(&mut self, certified: Rc<Certified>, attempt: &Attempt) {
        let options = &attempt.options;
        let Some(path) = &options.trusted_user_ca_keys else {
            return;
        };
        match trust::lists(path, &certified.certificate.authority) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                log::error!("TrustedUserCAKeys {}: {why}", path.display());
                self.refusal = "cert-authority-unreadable";
                return;
            }
        }
        self.places
            .push_back(Place::Signature(Rc::clone(&certified)));
        self.refusal = "cert-principal";
        let file = options.authorized_principals_file.is_some();
        let command = options.authorized_principals_command.is_some();
        if file {
            self.places
                .push_back(Place::PrincipalsFile(Rc::clone(&certified)));
        }
        if command && attempt.refusal.is_none() {
            self.places
                .push_back(Place::PrincipalsCommand(Rc::clone(&certified)));
        }
        // The decoy's name is nobody's, whatever a certificate says.
        let named = |name: &Vec<u8>| attempt.refusal.is_none() && *name == attempt.account.name;
        if !file && !command && certified.certificate.principals.iter().any(named) {
            self.places.push_back(Place::Trusted(certified));
        }
    }

    fn judge(&self, wanted: Wanted, user: &[u8], source: Source) -> Box<KeySearch> {
        let judge = Judge::new(wanted, user, self.client.clone(), source);
        Box::new(KeySearch::new(judge))
    }

    fn wanted_in_key_files(&self) -> Wanted {
        match &self.credential {
            Credential::Key(key) => Wanted::Key(key.clone()),
            Credential::Certificate(certified) => Wanted::Authority(Rc::clone(certified)),
        }
    }
}

impl Monitor {
    /// Goes to the next place; after the last one the answer is no.
    pub(super) fn look_further(&mut self, key: ConnectionKey) {
        loop {
            let Some(connection) = self.connections.get_mut(&key) else {
                return;
            };
            let ends = connection.ends;
            let Some(attempt) = connection.attempt() else {
                return;
            };
            let Some(mut lookup) = attempt.pending.as_mut().and_then(|it| it.lookup.take()) else {
                return;
            };
            let Some(place) = lookup.places.pop_front() else {
                return self.key_decided(key, Err(lookup.refusal));
            };
            let errand = lookup.errand(&place, attempt, ends, self.host.as_root);
            if let Some(pending) = attempt.pending.as_mut() {
                pending.lookup = Some(lookup);
            }
            match errand {
                Errand::Read(reading) => return self.read_keys(key, *reading),
                Errand::Found(options) => return self.found(key, options),
                Errand::Verify(check) => return self.verify(key, check, Hangs::Certificate),
                Errand::Nothing(None) => {}
                Errand::Nothing(Some(refusal)) => self.note_refusal(key, refusal),
            }
        }
    }

    /// A place was looked through.
    pub(super) fn looked(&mut self, key: ConnectionKey, findings: Findings) {
        let Some((place, attempt)) = self.attempt_from(key) else {
            return;
        };
        let user = lines::user_text(&attempt.user);
        // What the decoy's walk met is about no user of this machine.
        if attempt.refusal.is_none() {
            for report in &findings.reports {
                log::info!("{report} (user {user} from {place})");
            }
        }
        match findings.found.filter(|_| attempt.refusal.is_none()) {
            Some(Found {
                options,
                file,
                line,
            }) => {
                log::debug!("file {} line {line} lets {user} in", file + 1);
                self.found(key, options);
            }
            None => {
                if let Some(refusal) = findings.refusal {
                    self.note_refusal(key, refusal);
                }
                self.look_further(key);
            }
        }
    }

    /// A place lets the client in, provided that a certificate is signed.
    fn found(&mut self, key: ConnectionKey, options: Vec<KeyOptions>) {
        let Some(attempt) = self.connections.get_mut(&key).and_then(Connection::attempt) else {
            return;
        };
        let pending = attempt.pending.as_mut();
        let Some(lookup) = pending.and_then(|pending| pending.lookup.as_mut()) else {
            return;
        };
        match &lookup.credential {
            Credential::Certificate(certified) if !lookup.signed => {
                let check = authority_signature(&certified.certificate);
                lookup.found = Some(options);
                self.verify(key, check, Hangs::Certificate);
            }
            _ => {
                let verdict = self.revocations.check(&attempt.options, &lookup.credential);
                self.key_decided(key, verdict.map(|()| options));
            }
        }
    }

    /// Whether the certificate's authority signed it is known. If not, no other place will do.
    pub(super) fn certificate_signed(&mut self, key: ConnectionKey, signed: bool) {
        let Some(attempt) = self.connections.get_mut(&key).and_then(Connection::attempt) else {
            return;
        };
        let pending = attempt.pending.as_mut();
        let Some(lookup) = pending.and_then(|pending| pending.lookup.as_mut()) else {
            return;
        };
        if !signed {
            return self.key_decided(key, Err("cert-signature"));
        }
        lookup.signed = true;
        if let Err(code) = self.revocations.check(&attempt.options, &lookup.credential) {
            return self.key_decided(key, Err(code));
        }
        match lookup.found.take() {
            Some(options) => self.key_decided(key, Ok(options)),
            None => self.look_further(key),
        }
    }

    /// The first refusal that was about the credential itself says most.
    fn note_refusal(&mut self, key: ConnectionKey, refusal: &'static str) {
        let attempt = self.connections.get_mut(&key).and_then(Connection::attempt);
        let pending = attempt.and_then(|attempt| attempt.pending.as_mut());
        if let Some(lookup) = pending.and_then(|pending| pending.lookup.as_mut()) {
            lookup.refusal = refusal;
        }
    }
}

/// What a place asks for.
enum Errand {
    /// A child of the helper reads or runs something.
    Read(Box<Reading>),
    /// It is decided already.
    Found(Vec<KeyOptions>),
    /// It hangs on a signature.
    Verify(Check),
    /// This place has nothing, perhaps for a reason.
    Nothing(Option<&'static str>),
}

impl Lookup {
    fn errand(&self, place: &Place, attempt: &Attempt, ends: Ends, as_root: bool) -> Errand {
        let account = &attempt.account;
        let options = &attempt.options;
        match place {
            Place::KeyFiles => {
                let files: Vec<Bytes> = options
                    .authorized_keys_files
                    .iter()
                    .map(|pattern| user_file(pattern, account))
                    .collect();
                let wanted = self.wanted_in_key_files();
                let search = self.judge(wanted, &account.name, Source::KeyFiles);
                Errand::Read(Box::new(read_files(attempt, files, as_root, search)))
            }
            Place::PrincipalsFile(certified) => {
                let Some(pattern) = &options.authorized_principals_file else {
                    return Errand::Nothing(None);
                };
                let files = vec![user_file(pattern, account)];
                let wanted = Wanted::Principal(Rc::clone(certified));
                let search = self.judge(wanted, &account.name, Source::PrincipalsFile);
                Errand::Read(Box::new(read_files(attempt, files, as_root, search)))
            }
            Place::Signature(_) if self.signed => Errand::Nothing(None),
            Place::Signature(certified) => {
                Errand::Verify(authority_signature(&certified.certificate))
            }
            Place::Trusted(certified) => {
                let rights = certified.rights.clone();
                let host = self.client.host.as_deref();
                match rights.admit(host, self.client.address, self.client.now_s) {
                    Ok(()) => Errand::Found(vec![rights]),
                    Err(refusal) => Errand::Nothing(Some(refusal.code())),
                }
            }
            Place::PrincipalsCommand(certified) => self.command(
                options.authorized_principals_command.as_ref(),
                options.authorized_principals_command_user.as_ref(),
                Source::PrincipalsCommand,
                Wanted::Principal(Rc::clone(certified)),
                (attempt, ends, as_root),
            ),
            Place::KeysCommand => self.command(
                options.authorized_keys_command.as_ref(),
                options.authorized_keys_command_user.as_ref(),
                Source::KeysCommand,
                self.wanted_in_key_files(),
                (attempt, ends, as_root),
            ),
        }
    }

    fn command(
        &self,
        words: Option<&Vec<String>>,
        user: Option<&String>,
        source: Source,
        wanted: Wanted,
        (attempt, ends, as_root): (&Attempt, Ends, bool),
    ) -> Errand {
        let Some(words) = words else {
            return Errand::Nothing(None);
        };
        let account = &attempt.account;
        let tokens = Tokens {
            account,
            credential: &self.credential,
            ends,
        };
        let name = user.map(|user| tokens.expand(user));
        let Some(runner) = name.as_deref().and_then(account::lookup) else {
            let keyword = source.name();
            log::error!("{keyword} is not run: {keyword}User is no account; set it to one");
            return Errand::Nothing(Some(source.refusal()));
        };
        let mut arguments: Vec<Bytes> = words
            .iter()
            .map(|word| tokens.expand(word).into())
            .collect();
        if arguments.len() == 1 && source == Source::KeysCommand {
            // sshd_config(5): without arguments it gets the user's name.
            arguments.push(account.name.clone().into());
        }
        let search = self.judge(wanted, &account.name, source);
        let groups = runner.groups();
        let request = MonitorToHelper::RunCommand {
            identity: runner.identity(groups),
            change_identity: as_root,
            arguments,
            limit_bytes: KEY_COMMAND_OUTPUT_MAX_BYTES,
        };
        Errand::Read(Box::new(Reading { request, search }))
    }
}

fn authority_signature(certificate: &Certificate) -> Check {
    let (data, signature) = certificate.signed();
    Check {
        key: certificate.authority.clone(),
        algorithm: certificate.signature_algorithm().to_vec(),
        data: data.to_vec(),
        signature: signature.to_vec(),
    }
}

fn read_files(
    attempt: &Attempt,
    files: Vec<Bytes>,
    as_root: bool,
    search: Box<KeySearch>,
) -> Reading {
    let request = MonitorToHelper::ReadKeys {
        identity: attempt.account.identity(attempt.groups.clone()),
        change_identity: as_root,
        files,
        strict_modes: attempt.options.strict_modes,
        limit_bytes: KEY_FILE_MAX_BYTES,
    };
    Reading { request, search }
}

/// A file with its tokens, below the home directory where relative.
fn user_file(pattern: &str, account: &Account) -> Bytes {
    let path = expand(pattern, account);
    if path.starts_with(b"/") {
        path.into()
    } else {
        [account.home.as_slice(), b"/", &path].concat().into()
    }
}

/// What the tokens of commands stand for (sshd_config(5), TOKENS).
struct Tokens<'a> {
    account: &'a Account,
    credential: &'a Credential,
    ends: Ends,
}

impl Tokens<'_> {
    fn expand(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chars = text.bytes();
        while let Some(byte) = chars.next() {
            match (byte, byte == b'%') {
                (_, true) => out.extend(
                    chars
                        .next()
                        .map(|token| self.value(token))
                        .unwrap_or_default(),
                ),
                (byte, false) => out.push(byte),
            }
        }
        out
    }

    fn value(&self, token: u8) -> Vec<u8> {
        let certificate = match self.credential {
            Credential::Certificate(certified) => Some(&certified.certificate),
            Credential::Key(_) => None,
        };
        let key = self.credential.key();
        match token {
            b'u' => self.account.name.clone(),
            b'U' => self.account.uid.to_string().into_bytes(),
            b'h' => self.account.home.clone(),
            b'f' => key.fingerprint().into_bytes(),
            b't' => match certificate {
                Some(_) => key.key_type.certificate_name(),
                None => key.key_type.name(),
            }
            .into(),
            b'k' => base64::encode(certificate.map_or(&key.blob, |it| &it.blob)).into_bytes(),
            b'C' => self.connection().into_bytes(),
            b'F' => certificate.map_or_else(Vec::new, |it| it.authority.fingerprint().into_bytes()),
            b'K' => certificate.map_or_else(Vec::new, |it| {
                base64::encode(&it.authority.blob).into_bytes()
            }),
            b'T' => certificate.map_or_else(Vec::new, |it| it.authority.key_type.name().into()),
            b'i' => certificate.map_or_else(Vec::new, |it| it.key_id.clone()),
            b's' => certificate.map_or_else(Vec::new, |it| it.serial.to_string().into_bytes()),
            // Connections are in no routing domain.
            b'D' => Vec::new(),
            other => vec![other],
        }
    }

    /// Both ends: address and port each.
    fn connection(&self) -> String {
        let (peer, local) = (self.ends.peer, self.ends.local);
        format!(
            "{} {} {} {}",
            host_text(peer),
            peer.port(),
            host_text(local),
            local.port()
        )
    }
}
