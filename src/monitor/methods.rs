//! AuthenticationMethods: which methods may come next, and when a login is complete.

/// The only method that is served.
pub(super) const PUBLICKEY: &str = "publickey";

/// Whether `publickey` may come next by AuthenticationMethods (none configured: yes).
pub(super) fn publickey_is_open(methods: &[Vec<String>]) -> bool {
    methods.is_empty()
        || methods
            .iter()
            .any(|list| list.first().is_some_and(|name| is_publickey(name)))
}

fn is_publickey(name: &str) -> bool {
    name == PUBLICKEY || name == "any"
}

/// Takes `method` off the lists that begin with it; true when the login is complete.
pub(super) fn advance(methods: &mut [Vec<String>], method: &str) -> bool {
    if methods.is_empty() {
        return true;
    }
    // OpenSSH: lists that do not begin with it stay as they are.
    for list in methods.iter_mut() {
        if list
            .first()
            .is_some_and(|name| name == method || name == "any")
        {
            list.remove(0);
        }
    }
    methods.iter().any(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &[&[&str]]) -> Vec<Vec<String>> {
        text.iter()
            .map(|list| list.iter().map(|name| (*name).to_owned()).collect())
            .collect()
    }

    #[test]
    fn without_lists_one_method_is_enough() {
        let mut methods = lists(&[]);
        assert!(publickey_is_open(&methods));
        assert!(advance(&mut methods, PUBLICKEY));
    }

    #[test]
    fn a_list_is_worked_off_in_order() {
        let mut methods = lists(&[&["publickey", "publickey"], &["password", "publickey"]]);
        assert!(publickey_is_open(&methods));
        assert!(!advance(&mut methods, PUBLICKEY));
        assert!(publickey_is_open(&methods));
        assert!(advance(&mut methods, PUBLICKEY));
    }

    #[test]
    fn a_method_that_no_list_begins_with_is_closed() {
        let methods = lists(&[&["password", "publickey"]]);
        assert!(!publickey_is_open(&methods));
    }
}
