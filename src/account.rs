//! The account database: users, their groups, and whether an account is locked.
//!
//! Asked through libc (getpwnam_r(3) and friends): in a static musl file that is /etc/passwd,
//! /etc/group, /etc/shadow and an nscd socket, in a glibc build everything NSS knows. Called by the
//! monitor's main thread only. What a name may do is decided elsewhere (`monitor::allowed`).
#![allow(unsafe_code)] // Reason: the account database has no other interface than libc's C functions.

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

use agent_helper::frame::Identity;
use zeroize::Zeroize;

use crate::limits::{ACCOUNT_BUFFER_MAX_BYTES, GROUPS_MAX, SHADOW_LINE_BYTES, USER_NAME_MAX_BYTES};
use crate::password;

/// One account as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name as the database spells it.
    pub name: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: Vec<u8>,
    /// Login shell; may be empty, which means /bin/sh.
    pub shell: Vec<u8>,
    /// The password field of passwd; `x` where /etc/shadow has it.
    password: Vec<u8>,
}

/// What runs where the database names no shell (passwd(5)).
pub const DEFAULT_SHELL: &[u8] = b"/bin/sh";

impl Account {
    /// An account that nobody has: what the launch for an unknown user works with.
    pub fn decoy(id: u32) -> Self {
        Self {
            name: b"nobody-here".to_vec(),
            uid: id,
            gid: id,
            home: b"/nonexistent".to_vec(),
            shell: DEFAULT_SHELL.to_vec(),
            password: b"*".to_vec(),
        }
    }

    /// The login shell, never empty.
    pub fn shell(&self) -> &[u8] {
        if self.shell.is_empty() {
            DEFAULT_SHELL
        } else {
            &self.shell
        }
    }

    /// The password field of passwd(5): `x` where the shadow file has it.
    pub(crate) fn password_field(&self) -> &[u8] {
        &self.password
    }

    /// Ids of all groups, the primary one included.
    pub fn groups(&self) -> Vec<u32> {
        let Ok(name) = CString::new(self.name.clone()) else {
            return vec![self.gid];
        };
        let mut capacity = 32_usize;
        loop {
            let mut groups: Vec<libc::gid_t> = vec![0; capacity];
            let mut count = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
            // SAFETY: `name` is NUL-terminated and outlives the call; `groups` has room for `count`
            // ids, which is what the function is told.
            let result = unsafe {
                libc::getgrouplist(name.as_ptr(), self.gid, groups.as_mut_ptr(), &raw mut count)
            };
            let wanted = usize::try_from(count).unwrap_or(0);
            if result >= 0 {
                groups.truncate(wanted);
                groups.shrink_to_fit();
                return groups;
            }
            if capacity >= GROUPS_MAX {
                log::warn!("an account is in more than {GROUPS_MAX} groups: only the first count");
                groups.truncate(GROUPS_MAX);
                return groups;
            }
            capacity = wanted.clamp(capacity * 2, GROUPS_MAX);
        }
    }

    /// The identity for the helper.
    pub fn identity(&self, groups: Vec<u32>) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups,
            name: self.name.clone().into(),
            home: self.home.clone().into(),
            shell: self.shell().to_vec().into(),
        }
    }

    /// What passwd and the shadow file say of the account as a whole. Root can read both, so it is an
    /// error if it cannot; without root, what cannot be read says nothing.
    pub fn state(&self, as_root: bool) -> io::Result<State> {
        let shadow = match shadow_state(&self.name) {
            Err(_) if !as_root => None,
            answer => answer?,
        };
        Ok(self.state_with(shadow))
    }

    /// Either of the two locks it.
    fn state_with(&self, shadow: Option<State>) -> State {
        let shadow = shadow.unwrap_or_default();
        State {
            locked: shadow.locked || self.password.starts_with(b"!"),
            ..shadow
        }
    }
}

/// Whether an account may be used, whoever wants to (shadow(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// The password field begins with `!` (passwd(1)). `*`, which no password matches, is not locked.
    pub locked: bool,
    /// From this day since 1970 on the account is expired.
    pub expires: Option<i64>,
    /// So many days before, its user is told.
    pub warns_days: Option<i64>,
}

impl State {
    /// Whether the account is expired on a day.
    pub fn is_expired(&self, today: i64) -> bool {
        self.expires.is_some_and(|day| today >= day)
    }

    /// The days that are left, where there are so few that the user is to be told.
    pub fn few_days_left(&self, today: i64) -> Option<i64> {
        let left = self.expires?.saturating_sub(today);
        (left >= 0 && left <= self.warns_days?).then_some(left)
    }
}

/// Looks an account up by name. Names that no database can hold are unknown without a question.
pub fn lookup(name: &[u8]) -> Option<Account> {
    if name.is_empty() || name.len() > USER_NAME_MAX_BYTES {
        return None;
    }
    let name = CString::new(name).ok()?;
    fetch(|entry, buffer, found| {
        // SAFETY: `name` is NUL-terminated, the other pointers are valid for the call and the length
        // is the buffer's.
        unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                found,
            )
        }
    })
}

/// Looks an account up by user id.
pub fn by_uid(uid: u32) -> Option<Account> {
    fetch(|entry, buffer, found| {
        // SAFETY: the pointers are valid for the call and the length is the buffer's.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

/// The names of groups, for AllowGroups and Match Group; ids without a name are left out.
pub fn group_names(groups: &[u32]) -> Vec<String> {
    groups
        .iter()
        .filter_map(|gid| {
            // SAFETY: getgrgid keeps its answer in static storage; the monitor asks from its main
            // thread only, and the name is copied before anything else is asked.
            unsafe {
                let group = libc::getgrgid(*gid);
                let name = if group.is_null() {
                    ptr::null()
                } else {
                    (*group).gr_name
                };
                (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
            }
        })
        .collect()
}

/// The id of a group by its name.
pub fn group_id(name: &CStr) -> Option<u32> {
    // SAFETY: as in `group_names`; `name` is NUL-terminated.
    unsafe {
        let group = libc::getgrnam(name.as_ptr());
        (!group.is_null()).then(|| (*group).gr_gid)
    }
}

fn fetch(
    ask: impl Fn(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> libc::c_int,
) -> Option<Account> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        // SAFETY: all fields are integers and pointers, for which zeroes are valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        let result = ask(&raw mut entry, &mut buffer, &raw mut found);
        if result == libc::ERANGE && buffer.len() < ACCOUNT_BUFFER_MAX_BYTES {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if result != 0 || found.is_null() {
            return None;
        }
        // SAFETY: on success the fields are NULL or NUL-terminated strings inside `buffer`, which is
        // still alive and unchanged.
        return unsafe {
            Some(Account {
                name: copy(entry.pw_name),
                uid: entry.pw_uid,
                gid: entry.pw_gid,
                home: copy(entry.pw_dir),
                shell: copy(entry.pw_shell),
                password: copy(entry.pw_passwd),
            })
        };
    }
}

/// `None`: the shadow file has no line for `name`, or there is none.
fn shadow_state(name: &[u8]) -> io::Result<Option<State>> {
    let name = CString::new(name)?;
    let mut buffer: Vec<libc::c_char> = vec![0; SHADOW_LINE_BYTES];
    // SAFETY: all fields are integers and pointers, for which zeroes are valid.
    let mut entry: libc::spwd = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    // SAFETY: `name` is NUL-terminated, all pointers are valid for the call, the length is the
    // buffer's.
    let mut ask = |buffer: &mut Vec<libc::c_char>| unsafe {
        libc::getspnam_r(
            name.as_ptr(),
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    let mut result = ask(&mut buffer);
    if result == libc::ERANGE {
        buffer.zeroize();
        buffer = vec![0; ACCOUNT_BUFFER_MAX_BYTES];
        result = ask(&mut buffer);
    }
    if result != 0 || found.is_null() {
        buffer.zeroize();
        if result == libc::ERANGE {
            // musl says so too where the last line of the file has no end.
            return Ok(state_in(&password::read_shadow()?, name.to_bytes()));
        }
        return absent(result).map(|()| None);
    }
    // SAFETY: on success the field is NULL or a NUL-terminated string inside `buffer`. The hash
    // itself is not kept: one byte says whether the account is locked.
    let mut field = unsafe { copy(entry.sp_pwdp) };
    let locked = field.starts_with(b"!");
    field.zeroize();
    buffer.zeroize();
    #[allow(clippy::useless_conversion, reason = "32 bits on armv7")]
    let (expires, warns) = (i64::from(entry.sp_expire), i64::from(entry.sp_warn));
    Ok(Some(State {
        locked,
        expires: Some(expires).filter(|day| *day >= 0),
        warns_days: Some(warns).filter(|days| *days >= 0),
    }))
}

/// What a shadow file says of `name`. A day that is no number is no day.
fn state_in(file: &[u8], name: &[u8]) -> Option<State> {
    let mut lines = file.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() != Some(name) {
            return None;
        }
        let locked = fields.next()?.starts_with(b"!");
        let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse().ok();
        let warns_days = number(fields.nth(3));
        Some(State {
            locked,
            expires: number(fields.nth(1)),
            warns_days,
        })
    })
}

/// Where nothing was found: whether `status` says that there is nothing, or that nobody could look.
fn absent(status: libc::c_int) -> io::Result<()> {
    match status {
        0 | libc::ENOENT | libc::ESRCH => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// # Safety
///
/// `text` is NULL or a NUL-terminated string that is valid for the call.
unsafe fn copy(text: *const libc::c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_id() {
        let root = lookup(b"root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_uid(0).unwrap(), root);
        assert!(root.groups().contains(&0));
        assert_eq!(group_names(&[0]), ["root"]);
        assert_eq!(group_id(c"root"), Some(0));
    }

    #[test]
    fn a_last_line_without_its_end_is_a_line() {
        let file =
            b"root:*:1:0:99999:7:::\nalice:!$6$x:1:0:99999:7::20000:\nbob:$6$y:1:0:99999:7:::";
        let state = |locked, expires| {
            Some(State {
                locked,
                expires,
                warns_days: Some(7),
            })
        };
        assert_eq!(state_in(file, b"alice"), state(true, Some(20_000)));
        assert_eq!(state_in(file, b"bob"), state(false, None));
        assert_eq!(state_in(file, b"root"), state(false, None));
        assert_eq!(state_in(file, b"bo"), None);
    }

    #[test]
    fn impossible_names_are_unknown() {
        for name in [
            &b""[..],
            b"no\0body",
            b"surely-there-is-no-such-user",
            &[b'a'; 300],
        ] {
            assert_eq!(lookup(name), None);
        }
    }

    #[test]
    fn only_an_exclamation_mark_locks() {
        let with = |password: &[u8]| Account {
            password: password.to_vec(),
            ..Account::decoy(64313)
        };
        let locked = |password: &[u8]| with(password).state(false).unwrap().locked;
        assert!(locked(b"!"));
        assert!(locked(b"!$6$abc"));
        assert!(!locked(b"*"));
        assert!(!locked(b"$6$abc"));
    }

    #[test]
    fn either_field_locks_the_account() {
        let with = |password: &[u8], shadow| {
            let account = Account {
                password: password.to_vec(),
                ..Account::decoy(64313)
            };
            let shadow = State {
                locked: shadow,
                expires: Some(1),
                warns_days: None,
            };
            account.state_with(Some(shadow))
        };
        for password in [&b"x"[..], b"", b"*", b"$6$abc"] {
            assert!(with(password, true).locked);
            assert!(!with(password, false).locked);
        }
        assert!(with(b"!", false).locked);
        assert_eq!(with(b"!", false).expires, Some(1));
    }

    #[test]
    fn a_shadow_file_that_cannot_be_read_is_no_account_without_a_line() {
        for nothing in [0, libc::ENOENT, libc::ESRCH] {
            assert!(absent(nothing).is_ok());
        }
        for failure in [libc::EIO, libc::EMFILE, libc::ENOMEM, libc::EACCES] {
            assert_eq!(absent(failure).unwrap_err().raw_os_error(), Some(failure));
        }
    }

    #[test]
    fn an_account_expires_on_its_day() {
        let expires = |day| State {
            locked: false,
            expires: day,
            warns_days: Some(7),
        };
        assert!(!expires(None).is_expired(20_000));
        assert!(!expires(Some(20_001)).is_expired(20_000));
        assert!(expires(Some(20_000)).is_expired(20_000));
        assert!(expires(Some(0)).is_expired(0));
        let left = |day| expires(Some(day)).few_days_left(20_000);
        assert_eq!(
            (left(20_008), left(20_007), left(20_001)),
            (None, Some(7), Some(1))
        );
        assert_eq!(left(19_999), None);
        assert_eq!(expires(None).few_days_left(20_000), None);
        let silent = State {
            warns_days: None,
            ..expires(Some(20_001))
        };
        assert_eq!(silent.few_days_left(20_000), None);
    }

    #[test]
    fn an_empty_shell_means_bin_sh() {
        let account = Account {
            shell: Vec::new(),
            ..Account::decoy(64313)
        };
        assert_eq!(account.shell(), b"/bin/sh");
        assert_eq!(&*account.identity(vec![1]).shell, b"/bin/sh");
    }
}
