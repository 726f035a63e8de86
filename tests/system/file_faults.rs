//! Files in hard times, through the whole server: a disk that is full, processes that are killed,
//! clients that vanish, more open files than one process likes to have.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::accounts::{self, User};
use crate::clients::{self, Running};
use crate::files::{INTERNAL, noise, sftp};
use crate::harness::{Case, World};
use crate::processes::{self, wait_until};
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("file_faults::full_disk", full_disk),
    Case::new("file_faults::server_is_killed", server_is_killed),
    Case::new(
        "file_faults::broken_transfers_leave_nothing",
        broken_transfers_leave_nothing,
    ),
    Case::new("file_faults::many_open_files", many_open_files),
];

/// A small disk of the user's own.
struct Disk(PathBuf);

impl Disk {
    fn mount(user: &User, size: &str) -> Self {
        let at = user.home.join("disk");
        fs::create_dir(&at).unwrap();
        let options = format!("size={size},mode=700,uid={},gid={}", user.id, user.group_id);
        accounts::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "none"])
                .arg(&at),
        );
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The client hears of it, what was acknowledged is there, and the session goes on.
fn full_disk(world: &World) {
    let user = world.user();
    let disk = Disk::mount(&user, "2m");
    let server = world.server(&[INTERNAL]);
    let [large, small] = [("large", 8 << 20), ("small", 300_000)].map(|(name, len)| {
        let path = world.directory.join(name);
        fs::write(&path, noise(len)).unwrap();
        path
    });
    let batch = format!(
        "-put {} disk/large\nls -l disk/large\nrm disk/large\nput {} disk/small\n",
        large.display(),
        small.display()
    );
    let ran = sftp(&server, &user, &[], &batch);
    assert!(ran.err().contains("Failure"), "{}", ran.err());
    ran.success();
    assert!(fs::read(disk.0.join("small")).unwrap() == noise(300_000));
    assert!(!disk.0.join("large").exists());
}

/// An sftp client that sends without an end, once it has begun to.
fn endless_put(world: &World, server: &Server, user: &User, name: &str) -> Running {
    let endless = world.directory.join("endless");
    fs::File::create(&endless)
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    let mut command = Command::new("sftp");
    command
        .args(clients::ssh_options(&user.key))
        .args(["-P", &server.port.to_string(), "-b", "-"])
        .arg(format!("{}@127.0.0.1", user.name));
    let batch = format!("put {} {name}\n", endless.display());
    let running = Running::start(&mut command, batch.into());
    wait_until("some data", LIMIT, || {
        fs::metadata(user.home.join(name)).is_ok_and(|stat| stat.len() > 1 << 20)
    });
    running
}

/// The process that answers requests dies: its client hears of it, and nobody else.
fn server_is_killed(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let beside = sftp(&server, &user, &[], "put /etc/hostname kept\n");
    beside.success();
    let running = endless_put(world, &server, &user, "file");
    // The youngest of the user's processes.
    let newest = user.processes("").into_iter().max().unwrap();
    processes::kill(newest, Signal::KILL);
    let ran = running.wait();
    assert_ne!(ran.code(), Some(0), "{}", ran.err());
    wait_until("the user's processes to end", LIMIT, || {
        user.processes("").is_empty()
    });
    sftp(&server, &user, &[], "get kept /dev/null\n").success();
}

fn descriptors(server: &Server) -> usize {
    let count = |id: u32| fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count);
    // The users' net comes with the first login and stays for a while.
    let family = processes::family(server.id());
    family.iter().map(|process| count(process.id)).sum()
}

fn broken_transfers_leave_nothing(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let break_one = |number: usize| {
        let mut running = endless_put(world, &server, &user, &format!("file{number}"));
        running.child.kill().unwrap();
        drop(running);
        wait_until("the user's processes to end", LIMIT, || {
            user.processes("").is_empty()
        });
    };
    break_one(0);
    let before = descriptors(&server);
    (1..4).for_each(break_one);
    wait_until("descriptors to be closed", LIMIT, || {
        descriptors(&server) <= before
    });
}

/// More than `net` takes over: the others are served all the same, and nothing mixes.
fn many_open_files(world: &World) {
    let user = world.user();
    let directory = user.home.join("many");
    make_directory(&directory, &user);
    let server = world.server(&[INTERNAL]);
    let program = r#"
import sys, paramiko
transport = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
transport.connect(username=sys.argv[2], pkey=paramiko.Ed25519Key.from_private_key_file(sys.argv[3]))
files = paramiko.SFTPClient.from_transport(transport)
count = 150
opened = [files.open(f"many/{number}", "w+") for number in range(count)]
for round in range(3):
    for number, file in enumerate(opened):
        file.write(f"{number} in round {round}\n" * 100)
for number, file in enumerate(opened):
    file.seek(0)
    wanted = "".join(f"{number} in round {round}\n" * 100 for round in range(3))
    assert file.read().decode() == wanted, number
    file.close()
transport.close()
"#;
    let mut command = Command::new(clients::python());
    command
        .args(["-c", program, &server.port.to_string(), &user.name])
        .arg(&user.key);
    Running::start(&mut command, Vec::new())
        .wait_within(LIMIT * 3)
        .success();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 150);
}

fn make_directory(path: &Path, user: &User) {
    fs::create_dir(path).unwrap();
    chown(path, Some(user.id), Some(user.group_id)).unwrap();
}
