//! SIGHUP: a new configuration for new connections. Nothing changes where the new one has an error,
//! and live connections keep what they began with.

use std::rc::Rc;

use super::Monitor;
use super::connection::Generation;
use super::listeners::{NewListener, exchange, for_addresses};
use super::nets::Role;
use super::rundir::{remove_pid_file, write_pid_file};
use crate::config::{Config, Options};
use crate::frames::ToNet;
use crate::host_keys;

impl Monitor {
    pub(super) fn reload(&mut self) {
        log::info!("Received SIGHUP; reading the configuration again.");
        self.notifier.reloading();
        self.force_log_level(None);
        match self.read_again() {
            Ok((generation, listeners)) => self.replace(generation, listeners),
            Err(errors) => {
                for error in errors {
                    log::error!("{error}");
                }
                log::error!("the configuration is unchanged");
            }
        }
        self.notifier.ready();
    }

    /// All that can fail, before anything changes.
    fn read_again(&self) -> Result<(Generation, Vec<NewListener>), Vec<String>> {
        let loaded = Config::load(
            self.config_path.as_deref(),
            &self.overrides,
            self.host.as_root,
        )
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let options = loaded.config.global();
        let current = &self.generation.host_keys;
        let host_keys = host_keys::load_again(&options, self.host.as_root, current)?;
        let listeners = self.listeners_for(&options)?;
        let generation = Generation {
            config: loaded.config,
            options,
            host_keys,
        };
        Ok((generation, listeners))
    }

    /// Sockets for the new configuration: those that stay, and new ones.
    fn listeners_for(&self, options: &Options) -> Result<Vec<NewListener>, Vec<String>> {
        let (listeners, errors) = for_addresses(&options.listen, &self.listeners);
        let mut fatal = Vec::new();
        for (address, error) in errors {
            // Nothing is lost where there was none before: a host without IPv6, say.
            if self.generation.options.listen.contains(&address) && !listeners.is_empty() {
                log::warn!("{error}");
            } else {
                fatal.push(error);
            }
        }
        if fatal.is_empty() {
            Ok(listeners)
        } else {
            Err(fatal)
        }
    }

    fn replace(&mut self, generation: Generation, listeners: Vec<NewListener>) {
        self.listeners = exchange(std::mem::take(&mut self.listeners), listeners);
        // Written anew, as sshd's restart does: scripts wait for it.
        let pid_file = generation.options.pid_file.as_deref();
        if let Some(old) = &self.generation.options.pid_file
            && pid_file != Some(old)
        {
            remove_pid_file(old);
        }
        if let Some(path) = pid_file {
            write_pid_file(path);
        }
        self.generation = Rc::new(generation);
        self.speak_of_all();
        self.settle_debug();
        let old_nets: Vec<_> = self
            .nets
            .iter()
            .map(|(id, net)| (id, net.role == Role::Strangers))
            .collect();
        self.start_strangers();
        for (id, strangers) in old_nets {
            if strangers {
                self.nets
                    .send(&self.poller, id, 0, &ToNet::StopAccepting, &[]);
            } else {
                self.tell_level(id);
            }
            if let (true, Some(net)) = (strangers, self.nets.get_mut(id)) {
                net.retire();
            }
            self.end_retired(id);
        }
        self.log_listeners();
    }
}
