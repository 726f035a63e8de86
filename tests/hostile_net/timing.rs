//! A benchmark, not a test: how long the monitor takes to say no to users that there are and to users
//! that there are not, and what many keys in a file cost.
//!
//! `cargo test --release --test hostile_net -- --timing`, on a machine that does nothing else. Each
//! name has a floor of its own under every "no", out of a secret; so what is compared is how far the
//! answers lie above the quickest one for the same name. The two samples should be one: medians less
//! than 100 us apart, Kolmogorov-Smirnov p above 0.01.

use std::time::{Duration, Instant};

use agent::frames::{NetToMonitor, ToNet};
use agent::ssh::crypto::private_key::PrivateKey;

use super::client::{Connection, key_line, new_key, publickey_request, user};
use super::world::{Puppet, Setting, World};

/// Tries of each name.
const TRIES: usize = 1000;
/// Requests on one connection: the monitor takes 64.
const TRIES_PER_CONNECTION: usize = 40;
/// As long as the known name, most likely.
const UNKNOWN: &str = "nope";

pub fn report() {
    println!("keys   known us   unknown us   apart us   KS D    p       key found us");
    for keys in [1, 1000, 10_000] {
        let mut lines = String::new();
        for _ in 0..keys {
            lines.push_str(&key_line("", &new_key()));
        }
        let wanted = new_key();
        let setting = Setting {
            config: "MaxAuthTries 1000000\nPerSourcePenalties no\n".into(),
            keys: vec![(user(), lines + &key_line("", &wanted))],
            ..Setting::default()
        };
        let (world, puppet) = World::start(&setting);
        let mut bench = Bench {
            world,
            puppet,
            number: 0,
            tries: 0,
        };
        bench.print_row(keys, &wanted);
    }
}

struct Bench {
    world: World,
    puppet: Puppet,
    number: u32,
    tries: usize,
}

impl Bench {
    fn print_row(&mut self, keys: usize, wanted: &PrivateKey) {
        let (mut known, mut unknown, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let name = user();
        for _ in 0..TRIES / TRIES_PER_CONNECTION {
            // A connection is for one name; tries of both take turns, so that both meet the same load.
            let (mine, nobodys) = (self.connect(), self.connect());
            for _ in 0..TRIES_PER_CONNECTION {
                known.push(self.try_key(mine, &name, &new_key()));
                unknown.push(self.try_key(nobodys, UNKNOWN, &new_key()));
            }
            let queries = self.connect();
            // Fifteen queries may be answered with yes.
            for _ in 0..10 {
                found.push(self.try_key(queries, &name, wanted));
            }
        }
        let (known, unknown) = (above_floor(&known), above_floor(&unknown));
        let distance = ks_distance(&known, &unknown);
        let apart = median(&known) - median(&unknown);
        found.sort_unstable();
        println!(
            "{keys:<6} {:>8.0} {:>12.0} {apart:>10.0}   {distance:.3}   {:.4}  {:>8}",
            median(&known),
            median(&unknown),
            ks_p(distance, known.len(), unknown.len()),
            found[found.len() / 2].as_micros(),
        );
    }

    fn connect(&mut self) -> u32 {
        self.number += 1;
        let connection = Connection::exchanged(&self.world, &mut self.puppet, self.number);
        drop(connection);
        self.number
    }

    fn try_key(&mut self, number: u32, name: &str, key: &PrivateKey) -> Duration {
        self.tries += 1;
        let request = publickey_request(name, key.public(), None);
        let started = Instant::now();
        self.puppet.say(number, &NetToMonitor::Auth { request });
        match self.puppet.hear(number) {
            Some((ToNet::AuthFailure { .. } | ToNet::AuthPublicKeyOk { .. }, _)) => {}
            other => panic!("after {} tries: {other:?}", self.tries),
        }
        started.elapsed()
    }
}

/// Microseconds above the quickest, sorted.
fn above_floor(times: &[Duration]) -> Vec<f64> {
    let floor = times.iter().min().copied().unwrap_or_default();
    let above = times.iter().map(|time| (*time - floor).as_secs_f64() * 1e6);
    let mut above: Vec<f64> = above.collect();
    above.sort_by(f64::total_cmp);
    above
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// The greatest distance between two empirical distributions.
fn ks_distance(one: &[f64], other: &[f64]) -> f64 {
    let share = |sorted: &[f64], limit: f64| {
        let below = sorted.partition_point(|value| *value <= limit);
        f64::from(u32::try_from(below).unwrap()) / f64::from(u32::try_from(sorted.len()).unwrap())
    };
    let distances = one
        .iter()
        .chain(other)
        .map(|limit| (share(one, *limit) - share(other, *limit)).abs());
    distances.fold(0.0, f64::max)
}

/// Smirnov's asymptotic formula.
fn ks_p(distance: f64, one: usize, other: usize) -> f64 {
    let (one, other) = (
        f64::from(u32::try_from(one).unwrap()),
        f64::from(u32::try_from(other).unwrap()),
    );
    let root = (one * other / (one + other)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    let terms = (1..100).map(|k| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}
