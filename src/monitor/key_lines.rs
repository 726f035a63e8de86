//! Which line lets a key or a certificate in: lines of key files, principals files and commands.
//!
//! The first line that is about the credential and permits this client wins, as with OpenSSH. What
//! is wrong with such lines is reported, a bounded number of times; what is wrong with others is
//! their owner's business. Lines are a user's bytes, judged as root; no system calls in here.

#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::rc::Rc;

use crate::authorized_keys::{
    KeyLine, KeyOptions, LineError, names_key, parse_line, parse_principal,
};
use crate::limits::KEY_LINE_REPORTS_MAX;
use crate::ssh::crypto::base64;
use crate::ssh::crypto::certificate::Certificate;
use crate::ssh::crypto::public_key::PublicKey;

/// Whom a line must permit.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub address: IpAddr,
    pub host: Option<String>,
    /// Seconds since 1970.
    pub now_s: i64,
}

/// What lines are looked through for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// A line with this key.
    Key(PublicKey),
    /// A line `cert-authority` with the key that signed this certificate.
    Authority(Rc<Certified>),
    /// A name out of this certificate.
    Principal(Rc<Certified>),
}

/// A certificate that is valid now, and what it permits. Whether its authority really signed it is
/// not seen here.
#[derive(Debug)]
pub(super) struct Certified {
    pub certificate: Certificate,
    pub rights: KeyOptions,
}

/// The line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Of the line, and of the certificate: all of them hold.
    pub options: Vec<KeyOptions>,
    /// Index of the file in the request.
    pub file: u32,
    pub line: u32,
}

/// What came of looking through all of them.
#[derive(Debug)]
pub(super) struct Findings {
    pub found: Option<Found>,
    /// For the log.
    pub reports: Vec<String>,
    /// The reason code of the first line that was about the credential and refused it.
    pub refusal: Option<&'static str>,
}

impl Findings {
    /// Nothing could be looked at.
    pub(super) fn unreadable() -> Self {
        Self {
            found: None,
            reports: Vec::new(),
            refusal: Some("keys-unreadable"),
        }
    }
}

/// Where lines come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    KeyFiles,
    PrincipalsFile,
    KeysCommand,
    PrincipalsCommand,
}

impl Source {
    /// For the log, before the number of the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeyFiles => "key file",
            Self::PrincipalsFile => "principals file",
            Self::KeysCommand => "AuthorizedKeysCommand",
            Self::PrincipalsCommand => "AuthorizedPrincipalsCommand",
        }
    }

    /// The reason code where nothing of it counts.
    pub(super) fn refusal(self) -> &'static str {
        match self {
            Self::KeyFiles | Self::PrincipalsFile => "strict-modes",
            Self::KeysCommand => "keys-command",
            Self::PrincipalsCommand => "principals-command",
        }
    }

    /// The source, and the file where there may be several.
    fn place(self, file: u32) -> String {
        match self {
            Self::KeyFiles => format!("{} {}", self.name(), file.saturating_add(1)),
            _ => self.name().to_owned(),
        }
    }
}

/// Looks at lines, one after the other.
#[derive(Debug)]
pub(super) struct Judge {
    wanted: Wanted,
    /// The key as it stands in a line, for all but principals.
    text: String,
    /// Whose account it is to be.
    user: Vec<u8>,
    client: Client,
    source: Source,
    findings: Findings,
}

/// Why a line about the credential does not count: a reason code and words for the log.
type Refusal = (&'static str, String);

impl Judge {
    pub(super) fn new(wanted: Wanted, user: &[u8], client: Client, source: Source) -> Self {
        let text = match &wanted {
            Wanted::Key(key) => base64::encode(&key.blob),
            Wanted::Authority(certified) => base64::encode(&certified.certificate.authority.blob),
            Wanted::Principal(_) => String::new(),
        };
        Self {
            wanted,
            text,
            user: user.to_vec(),
            client,
            source,
            findings: Findings {
                found: None,
                reports: Vec::new(),
                refusal: None,
            },
        }
    }

    pub(super) fn finish(self) -> Findings {
        self.findings
    }

    /// Looks at one line.
    pub(super) fn line(&mut self, file: u32, number: u32, line: Result<&[u8], LineError>) {
        if self.findings.found.is_some() {
            return;
        }
        let Ok(line) = line else {
            return self.report_line(file, number, "skipped: it is too long");
        };
        let judged = match &self.wanted {
            Wanted::Principal(certified) => self.judge_principal(certified, line),
            Wanted::Key(key) => self.judge_key(key, None, line),
            Wanted::Authority(certified) => {
                self.judge_key(&certified.certificate.authority, Some(certified), line)
            }
        };
        match judged {
            Ok(None) => {}
            Ok(Some(options)) => {
                self.findings.found = Some(Found {
                    options,
                    file,
                    line: number,
                });
            }
            Err((code, words)) => {
                self.findings.refusal.get_or_insert(code);
                self.report_line(file, number, &words);
            }
        }
    }

    /// A line of a key file: `None` where it is about another key.
    fn judge_key(
        &self,
        wanted: &PublicKey,
        certified: Option<&Certified>,
        line: &[u8],
    ) -> Result<Option<Vec<KeyOptions>>, Refusal> {
        // Of thousands of lines few are worth taking apart.
        if !names_key(line, wanted.key_type, self.text.as_bytes()) {
            return Ok(None);
        }
        let key = match parse_line(line) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(None),
            Err(error) => return Err(("key-line-malformed", format!("skipped: {error}"))),
        };
        // It may stand in an option or in the comment of a line for another key.
        if key.key_type != wanted.key_type || key.blob != wanted.blob {
            return Ok(None);
        }
        // A key of its own is no authority, and an authority none to log in with.
        if key.options.cert_authority != certified.is_some() {
            return Ok(None);
        }
        if let Some(certified) = certified {
            self.check_principals(&key, &certified.certificate)?;
        }
        self.admit(key.options, certified).map(Some)
    }

    /// A certificate must be for this account, or for a name that its authority's line gives.
    fn check_principals(&self, key: &KeyLine, certificate: &Certificate) -> Result<(), Refusal> {
        let named = |name: &[u8]| certificate.principals.iter().any(|it| it == name);
        let permitted = match &key.options.principals {
            Some(names) => names
                .split(|&byte| byte == b',')
                .any(|name| !name.is_empty() && named(name)),
            None => named(&self.user),
        };
        if permitted {
            Ok(())
        } else {
            let words = "the certificate is for none of its principals".to_owned();
            Err(("cert-principal", words))
        }
    }

    fn judge_principal(
        &self,
        certified: &Certified,
        line: &[u8],
    ) -> Result<Option<Vec<KeyOptions>>, Refusal> {
        let (options, name) = match parse_principal(line) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            Err(error) => return Err(("cert-principals-line", format!("skipped: {error}"))),
        };
        if !certified.certificate.principals.iter().any(|it| it == name) {
            return Ok(None);
        }
        self.admit(options, Some(certified)).map(Some)
    }

    /// What the line says of this client, together with what the certificate says.
    fn admit(
        &self,
        options: KeyOptions,
        certified: Option<&Certified>,
    ) -> Result<Vec<KeyOptions>, Refusal> {
        let mut all = vec![options];
        all.extend(certified.map(|it| it.rights.clone()));
        for options in &all {
            let host = self.client.host.as_deref();
            options
                .admit(host, self.client.address, self.client.now_s)
                .map_err(|refusal| (refusal.code(), format!("the key is refused: {refusal}")))?;
        }
        let mut commands = all.iter().filter_map(|options| options.command.as_ref());
        let first = commands.next();
        if commands.any(|other| Some(other) != first) {
            let words = "the certificate forces another command than the line".to_owned();
            return Err(("cert-force-command", words));
        }
        Ok(all)
    }

    /// A file that StrictModes or its kind forbids, or a command that did not do its work.
    pub(super) fn refused(&mut self, file: u32, why: &str) {
        self.forget(file);
        self.findings.refusal.get_or_insert(self.source.refusal());
        self.push_report(format!("Authentication refused: {why}"));
    }

    pub(super) fn unreadable(&mut self, file: u32, why: &str) {
        self.forget(file);
        self.report(file, why);
    }

    /// About a file as a whole.
    pub(super) fn report(&mut self, file: u32, words: &str) {
        let place = self.source.place(file);
        self.push_report(format!("{place}: {words}"));
    }

    fn report_line(&mut self, file: u32, number: u32, words: &str) {
        let place = format!("{} line {number}", self.source.place(file));
        self.push_report(format!("{place}: {words}"));
    }

    fn push_report(&mut self, text: String) {
        if self.findings.reports.len() < KEY_LINE_REPORTS_MAX {
            self.findings.reports.push(text);
        }
    }

    /// Half a file is not the file: what was found in it does not count.
    fn forget(&mut self, file: u32) {
        if self
            .findings
            .found
            .as_ref()
            .is_some_and(|found| found.file == file)
        {
            self.findings.found = None;
        }
    }
}
