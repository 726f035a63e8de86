//! Signatures that take milliseconds, away from the loop: no login waits for another's. Those of RSA
//! host keys are made here, those of users' large keys verified.
//!
//! One thread, started at the first such signature. It must be stopped before the process forks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

use super::ids::ConnectionKey;
use super::verify::{Check, Verdict};
use crate::host_keys::HostKey;
use crate::limits::WORKER_QUEUE_MAX;
use crate::profile;
use crate::ssh::crypto::{CryptoError, Random};

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A key exchange.
    Exchange,
    /// To prove the host key with this blob.
    Proof(Vec<u8>),
}

/// Something to be done.
#[derive(Debug)]
pub(super) enum Job {
    Sign(ToSign),
    /// For the connection.
    Verify(ConnectionKey, Check),
}

/// Something that is done.
#[derive(Debug)]
pub(super) enum Done {
    Signed(Signed),
    Verified(ConnectionKey, Verdict),
}

/// A signature to be made.
#[derive(Debug)]
pub(super) struct ToSign {
    pub connection: ConnectionKey,
    pub purpose: Purpose,
    pub key: Arc<HostKey>,
    pub algorithm: Vec<u8>,
    pub data: Vec<u8>,
}

/// A signature that was made.
#[derive(Debug)]
pub(super) struct Signed {
    pub connection: ConnectionKey,
    pub purpose: Purpose,
    pub signature: Result<Vec<u8>, CryptoError>,
}

impl Job {
    fn work(self, random: &Random) -> Done {
        match self {
            Self::Sign(job) => Done::Signed(Signed {
                connection: job.connection,
                purpose: job.purpose,
                signature: job.key.private.sign(&job.algorithm, &job.data, random),
            }),
            Self::Verify(connection, check) => Done::Verified(connection, check.verdict()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    wake: Arc<OwnedFd>,
    results: (Sender<Done>, Receiver<Done>),
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Worker {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            wake: Arc::new(wake),
            results: channel(),
            thread: None,
        })
    }

    /// Gives `job` to the thread; false where that is not possible now.
    pub(super) fn submit(&mut self, job: Job) -> bool {
        match self.thread.take() {
            Some(living) if !living.1.is_finished() => self.thread = Some(living),
            // None yet, or it panicked: what it had at hand ends with that login's grace time.
            _ => self.thread = self.start(),
        }
        match &self.thread {
            Some((jobs, _)) => jobs.try_send(job).is_ok(),
            None => false,
        }
    }

    /// What is finished.
    pub(super) fn take(&mut self) -> Vec<Done> {
        let mut count = [0; 8];
        let _ = io::read(&self.wake, &mut count);
        self.results.1.try_iter().collect()
    }

    /// Waits for the thread to finish what it has and ends it; false: there is none.
    pub(super) fn stop(&mut self) -> bool {
        let Some((jobs, thread)) = self.thread.take() else {
            return false;
        };
        drop(jobs);
        let _ = thread.join();
        true
    }

    fn start(&self) -> Option<(SyncSender<Job>, JoinHandle<()>)> {
        let (sender, jobs) = sync_channel::<Job>(WORKER_QUEUE_MAX);
        let results = self.results.0.clone();
        let wake = Arc::clone(&self.wake);
        let work = move || {
            let _registered = profile::register();
            let random = Random::system();
            while let Ok(job) = profile::wait(|| jobs.recv()) {
                if results.send(job.work(&random)).is_err() {
                    return;
                }
                let _ = io::write(&wake, &1_u64.to_ne_bytes());
            }
        };
        profile::spawns();
        match std::thread::Builder::new()
            .name("signatures".into())
            .spawn(work)
        {
            Ok(thread) => Some((sender, thread)),
            Err(error) => {
                log::error!("no thread for signatures: {error}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ssh::crypto::private_key::PrivateKey;
    use crate::ssh::crypto::public_key::KeyType;

    #[test]
    fn a_thread_that_ended_is_replaced() {
        let mut worker = Worker::new().unwrap();
        let ended = std::thread::spawn(|| {});
        while !ended.is_finished() {
            std::thread::yield_now();
        }
        worker.thread = Some((sync_channel(1).0, ended));
        let private = PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap();
        let signature = private
            .sign(b"ssh-ed25519", b"data", &Random::system())
            .unwrap();
        let check = Check {
            key: private.public().clone(),
            algorithm: b"ssh-ed25519".to_vec(),
            data: b"data".to_vec(),
            signature,
        };
        let key = ConnectionKey(1);
        assert!(worker.submit(Job::Verify(key, check)));
        assert!(worker.stop());
        assert!(!worker.stop());
        let done = worker.take();
        assert!(
            matches!(done[..], [Done::Verified(_, Ok(None))]),
            "{done:?}"
        );
    }
}
