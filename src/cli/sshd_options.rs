//! What stands here for the options of sshd(8), told to whoever types or scripts them out of habit.

/// For a word that was not understood: what to write instead, if sshd understands it.
pub(super) fn instead(word: &str) -> Option<&'static str> {
    let mut characters = word.strip_prefix('-')?.chars();
    Some(match characters.next()? {
        't' => "sshd's -t is here: agent check",
        'T' | 'G' => "sshd's -T is here: agent check --dump",
        'f' => "sshd's -f is here: agent -c FILE serve",
        'i' => "sshd's -i is here: agent serve --inetd",
        'D' | 'e' => "agent serve stays in the foreground and logs to standard error: leave it out",
        'd' => "sshd's -d is nearly: agent serve -o LogLevel=DEBUG",
        'E' => "agent serve logs to standard error: agent serve 2>>FILE",
        'q' => "sshd's -q is here: agent serve -o LogLevel=QUIET",
        '4' => "sshd's -4 is here: agent serve -o AddressFamily=inet",
        '6' => "sshd's -6 is here: agent serve -o AddressFamily=inet6",
        'g' => "sshd's -g is here: agent serve -o LoginGraceTime=SECONDS",
        'o' | 'p' => "it stands behind the command: agent serve -p PORT -o KEYWORD=VALUE",
        'C' => "it stands behind the command: agent check --dump -C user=NAME,addr=ADDRESS",
        'V' => "sshd's -V is here: agent --version",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_sshd_only() {
        assert!(instead("-t").is_some_and(|text| text.ends_with("agent check")));
        assert!(instead("-ddd").is_some_and(|text| text.contains("LogLevel")));
        for other in ["-", "--", "--test", "-x", "reload", ""] {
            assert_eq!(instead(other), None, "{other}");
        }
    }
}
