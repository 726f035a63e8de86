//! What all accepted keys and certificates together permit: the intersection.

use super::connection::AcceptedKey;
use crate::authorized_keys::{KeyOptions, Permits};

/// Keys that were accepted one after the other force different commands: nothing is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommandsDiffer;

/// The rights of a login, before the configuration narrows them further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub command: Option<Vec<u8>>,
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub permits: Permits,
    /// The only tunnel device.
    pub tunnel: Option<u32>,
    /// Lists of `HOST:PORT`: a target must be in each of them. No list: no limit.
    pub permit_open: Vec<Vec<Vec<u8>>>,
    /// The same for listening.
    pub permit_listen: Vec<Vec<Vec<u8>>>,
}

impl Rights {
    pub(super) fn of(accepted: &[AcceptedKey]) -> Result<Self, CommandsDiffer> {
        let mut rights = Self {
            command: None,
            environment: Vec::new(),
            permits: Permits::ALL,
            tunnel: None,
            permit_open: Vec::new(),
            permit_listen: Vec::new(),
        };
        for options in accepted.iter().flat_map(|key| &key.options) {
            rights.narrow(options)?;
        }
        Ok(rights)
    }

    fn narrow(&mut self, options: &KeyOptions) -> Result<(), CommandsDiffer> {
        match (&self.command, &options.command) {
            (Some(one), Some(other)) if one != other => return Err(CommandsDiffer),
            (None, Some(command)) => self.command = Some(command.clone()),
            _ => {}
        }
        for (name, value) in &options.environment {
            if !self.environment.iter().any(|(known, _)| known == name) {
                self.environment.push((name.clone(), value.clone()));
            }
        }
        self.permits.narrow(options.permits);
        match (self.tunnel, options.tunnel) {
            // Each leaves nothing of what the other does.
            (Some(one), Some(other)) if one != other => self.permits.tunnel = false,
            (None, Some(unit)) => self.tunnel = Some(unit),
            _ => {}
        }
        for (lists, targets) in [
            (&mut self.permit_open, &options.permit_open),
            (&mut self.permit_listen, &options.permit_listen),
        ] {
            if !targets.is_empty() {
                lists.push(targets.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(options: Vec<KeyOptions>) -> AcceptedKey {
        AcceptedKey {
            key: Vec::new(),
            presented: Vec::new(),
            options,
            description: String::new(),
        }
    }

    fn with_command(command: &[u8]) -> KeyOptions {
        KeyOptions {
            command: Some(command.to_vec()),
            ..KeyOptions::default()
        }
    }

    #[test]
    fn several_keys_permit_only_what_all_of_them_do() {
        let forced = KeyOptions {
            permits: Permits {
                pty: false,
                ..Permits::ALL
            },
            permit_open: vec![b"a:1".to_vec()],
            ..with_command(b"id")
        };
        let quiet = KeyOptions {
            permits: Permits {
                user_rc: false,
                ..Permits::ALL
            },
            permit_open: vec![b"b:2".to_vec()],
            ..KeyOptions::default()
        };
        let rights = Rights::of(&[key(vec![forced]), key(vec![quiet])]).unwrap();
        assert_eq!(rights.command.unwrap(), b"id");
        assert!(!rights.permits.pty && !rights.permits.user_rc);
        assert!(rights.permits.port_forwarding && rights.permits.agent_forwarding);
        assert_eq!(rights.permit_open.len(), 2, "a target must be in both");
        assert!(rights.permit_listen.is_empty());
    }

    #[test]
    fn a_certificate_narrows_its_line() {
        let line = KeyOptions {
            permits: Permits {
                x11_forwarding: false,
                ..Permits::ALL
            },
            ..KeyOptions::default()
        };
        let certificate = KeyOptions {
            permits: Permits {
                pty: true,
                x11_forwarding: true,
                ..Permits::NONE
            },
            ..KeyOptions::none()
        };
        let rights = Rights::of(&[key(vec![line, certificate])]).unwrap();
        assert!(rights.permits.pty && !rights.permits.x11_forwarding);
        assert!(!rights.permits.user_rc && !rights.permits.port_forwarding);
    }

    #[test]
    fn keys_that_force_different_tunnels_permit_none() {
        let with = |tunnel| {
            key(vec![KeyOptions {
                tunnel,
                ..KeyOptions::default()
            }])
        };
        let rights = Rights::of(&[with(Some(1)), with(None), with(Some(1))]).unwrap();
        assert!(rights.permits.tunnel && rights.tunnel == Some(1));
        assert!(
            !Rights::of(&[with(Some(1)), with(Some(2))])
                .unwrap()
                .permits
                .tunnel
        );
    }

    #[test]
    fn keys_that_force_different_commands_permit_nothing() {
        let one = || key(vec![with_command(b"id")]);
        assert!(Rights::of(&[one(), one()]).is_ok());
        assert!(Rights::of(&[one(), key(vec![with_command(b"ls")])]).is_err());
    }
}
