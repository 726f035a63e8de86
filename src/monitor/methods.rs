//! AuthenticationMethods: which methods may come next, and when a login is complete.

use crate::config::Options;

/// A method of RFC 4252 that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `none`: lets in whose password is empty, where that is permitted.
    Nothing,
    PublicKey,
    Password,
    KeyboardInteractive,
}

impl Way {
    /// In the order in which OpenSSH lists them.
    const ALL: [Self; 4] = [
        Self::Nothing,
        Self::PublicKey,
        Self::Password,
        Self::KeyboardInteractive,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::PublicKey => "publickey",
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
        }
    }

    /// Whether the configuration switches it on. Without root nobody's password can be read.
    fn is_enabled(self, options: &Options, as_root: bool) -> bool {
        match self {
            Self::PublicKey => options.pubkey_authentication,
            Self::Password => options.password_authentication && as_root,
            Self::KeyboardInteractive => options.kbd_interactive_authentication && as_root,
            Self::Nothing => {
                options.permit_empty_passwords && options.password_authentication && as_root
            }
        }
    }

    /// Whether an entry of a list names it; the device of `keyboard-interactive:DEVICE` is the one
    /// that there is.
    fn is_named(self, entry: &str) -> bool {
        entry.split(':').next() == Some(self.name())
    }
}

/// What an attempt still has to go through.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    enabled: Vec<Way>,
    /// AuthenticationMethods, each list without what was done of it; `None`: any one method.
    lists: Option<Vec<Vec<String>>>,
}

impl Methods {
    /// As configured. Lists with a method that is switched off are left out, as OpenSSH does; where
    /// none is left, nobody gets in.
    pub(super) fn new(options: &Options, as_root: bool) -> Self {
        let enabled: Vec<Way> = Way::ALL
            .into_iter()
            .filter(|way| way.is_enabled(options, as_root))
            .collect();
        let configured = &options.authentication_methods;
        let can_be_done = |list: &&Vec<String>| {
            let known = |entry: &String| enabled.iter().any(|way| way.is_named(entry));
            list.iter().all(known)
        };
        let lists = (!configured.is_empty())
            .then(|| configured.iter().filter(can_be_done).cloned().collect());
        Self { enabled, lists }
    }

    /// Whether `way` may come next.
    pub(super) fn is_open(&self, way: Way) -> bool {
        let next = |list: &Vec<String>| list.first().is_some_and(|entry| way.is_named(entry));
        self.enabled.contains(&way)
            && self
                .lists
                .as_ref()
                .is_none_or(|lists| lists.iter().any(next))
    }

    /// The names of those that may come next, for SSH_MSG_USERAUTH_FAILURE.
    pub(super) fn open(&self) -> impl Iterator<Item = &'static str> {
        let listed = Way::ALL.into_iter().filter(|way| *way != Way::Nothing);
        listed.filter(|way| self.is_open(*way)).map(Way::name)
    }

    /// `way` succeeded: takes it off the lists that begin with it. True when the login is complete.
    pub(super) fn advance(&mut self, way: Way) -> bool {
        let Some(lists) = &mut self.lists else {
            return true;
        };
        // OpenSSH: lists that do not begin with it stay as they are.
        for list in lists.iter_mut() {
            if list.first().is_some_and(|entry| way.is_named(entry)) {
                list.remove(0);
            }
        }
        lists.iter().any(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    fn methods(text: &str) -> Methods {
        let config = Config::from_text(text.as_bytes(), true).unwrap().config;
        Methods::new(&config.global(), true)
    }

    fn open(methods: &Methods) -> String {
        methods.open().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn without_lists_one_method_is_enough() {
        let mut methods = methods("");
        assert_eq!(open(&methods), "publickey,password,keyboard-interactive");
        assert!(!methods.is_open(Way::Nothing));
        assert!(methods.advance(Way::Password));
    }

    #[test]
    fn what_is_switched_off_is_closed() {
        let off = methods("PasswordAuthentication no\nKbdInteractiveAuthentication no\n");
        assert_eq!(open(&off), "publickey");
        let off = methods("PubkeyAuthentication no\nKbdInteractiveAuthentication no\n");
        assert_eq!(open(&off), "password");
        assert!(!off.is_open(Way::PublicKey));
        let config = Config::from_text(b"PermitEmptyPasswords yes\n", true);
        let options = config.unwrap().config.global();
        assert!(Methods::new(&options, true).is_open(Way::Nothing));
        let without_root = Methods::new(&options, false);
        assert_eq!(open(&without_root), "publickey");
        assert!(!without_root.is_open(Way::Nothing));
    }

    #[test]
    fn a_list_is_worked_off_in_order() {
        let mut methods = methods("AuthenticationMethods publickey,publickey password,publickey\n");
        assert_eq!(open(&methods), "publickey,password");
        assert!(!methods.advance(Way::PublicKey));
        assert_eq!(open(&methods), "publickey,password");
        let mut other = methods.clone();
        assert!(methods.advance(Way::PublicKey));
        // The second list is still at its beginning.
        assert!(!other.advance(Way::Password));
        assert_eq!(open(&other), "publickey");
        assert!(other.advance(Way::PublicKey));
    }

    #[test]
    fn no_step_is_skipped_and_none_is_done_by_another_method() {
        let mut methods = methods("AuthenticationMethods publickey,password\n");
        assert_eq!(open(&methods), "publickey");
        for way in [Way::Password, Way::KeyboardInteractive, Way::Nothing] {
            assert!(!methods.is_open(way), "{way:?}");
            assert!(!methods.advance(way), "{way:?}");
        }
        assert_eq!(open(&methods), "publickey");
        assert!(!methods.advance(Way::PublicKey));
        assert!(!methods.is_open(Way::PublicKey));
        assert!(!methods.advance(Way::PublicKey));
        assert!(methods.advance(Way::Password));
    }

    #[test]
    fn an_empty_password_does_no_step_of_a_list() {
        let mut methods =
            methods("PermitEmptyPasswords yes\nAuthenticationMethods publickey,password\n");
        assert!(!methods.is_open(Way::Nothing));
        assert!(!methods.advance(Way::Nothing));
    }

    #[test]
    fn lists_that_cannot_be_gone_through_are_left_out() {
        let methods = methods(
            "PasswordAuthentication no\nAuthenticationMethods publickey,password publickey,keyboard-interactive:pam\n",
        );
        assert_eq!(open(&methods), "publickey");
        let mut methods = methods;
        assert!(!methods.advance(Way::PublicKey));
        assert_eq!(open(&methods), "keyboard-interactive");
        let none = self::methods("PasswordAuthentication no\nAuthenticationMethods password\n");
        assert_eq!(open(&none), "");
        for way in Way::ALL {
            assert!(!none.is_open(way));
        }
    }
}
