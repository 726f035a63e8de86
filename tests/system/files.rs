//! Files: OpenSSH's sftp and scp, and other people's clients, against the server's own sftp.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accounts::User;
use crate::clients::{self, Ran, Running};
use crate::harness::{Case, World};
use crate::server::Server;

pub const CASES: &[Case] = &[
    Case::new("files::both_ways", both_ways),
    Case::new("files::scp_in_both_modes", scp_in_both_modes),
    Case::new("files::tree", tree),
    Case::new("files::forced", forced),
    Case::new("files::chroot", chroot),
    Case::new("files::bad_chroot", bad_chroot),
    Case::new("files::options", options),
    Case::new("files::request_lists", request_lists),
    Case::new("files::external_server", external_server),
    Case::new(
        "files::in_the_place_of_openssh_s",
        in_the_place_of_openssh_s,
    )
    .only_agent(),
    Case::new("files::client_vanishes", client_vanishes),
    Case::new(
        "files::client_ends_within_a_packet",
        client_ends_within_a_packet,
    ),
    Case::new("files::audit", audit).only_agent(),
    Case::new("files::audit_of_scp", audit_of_scp).only_agent(),
    Case::new(
        "files::audit_of_broken_transfers",
        audit_of_broken_transfers,
    )
    .only_agent(),
    Case::new("files::log_is_complete", log_is_complete).only_agent(),
    Case::new("files::scp_without_a_program", scp_without_a_program).only_agent(),
];

pub const INTERNAL: &str = "Subsystem sftp internal-sftp";

/// Bytes without a pattern, the same each time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// OpenSSH's sftp with a batch of commands.
pub fn sftp(server: &Server, user: &User, options: &[&str], batch: &str) -> Ran {
    let mut command = Command::new("sftp");
    command
        .args(clients::ssh_options(&user.key))
        .args(["-P", &server.port.to_string(), "-b", "-"])
        .args(options)
        .arg(format!("{}@127.0.0.1", user.name))
        .env_remove("SSH_AUTH_SOCK")
        .env("LC_ALL", "C");
    Running::start(&mut command, batch.into()).wait()
}

fn scp(server: &Server, user: &User, arguments: &[&str]) -> Ran {
    let mut command = Command::new("scp");
    command
        .args(clients::ssh_options(&user.key))
        .args(["-P", &server.port.to_string()])
        .args(arguments)
        .env_remove("SSH_AUTH_SOCK")
        .env("LC_ALL", "C");
    clients::run(&mut command)
}

/// A directory of the user's own.
fn own_directory(user: &User, name: &str) -> PathBuf {
    let path = user.home.join(name);
    fs::create_dir(&path).unwrap();
    chown(&path, Some(user.id), Some(user.group_id)).unwrap();
    path
}

fn both_ways(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let content = noise(5_000_001);
    let source = world.directory.join("source");
    fs::write(&source, &content).unwrap();
    let back = world.directory.join("back");
    for options in [
        &[][..],
        &["-B", "32767", "-R", "1"],
        &["-B", "261120", "-R", "200"],
    ] {
        let batch = format!(
            "put {} there\nls -l\nget there {}\nrm there\n",
            source.display(),
            back.display()
        );
        let listing = sftp(&server, &user, options, &batch).success();
        assert!(listing.contains(" 5000001 "), "{listing}");
        assert!(listing.contains(&user.name), "{listing}");
        assert!(fs::read(&back).unwrap() == content);
        fs::remove_file(&back).unwrap();
    }
    let ran = sftp(&server, &user, &[], "get /nonexistent/x\n");
    assert!(ran.err().contains("not found"), "{}", ran.err());
    let ran = sftp(&server, &user, &[], "get /etc/shadow /tmp/x\n");
    assert!(ran.err().contains("Permission denied"), "{}", ran.err());
}

fn scp_in_both_modes(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let content = noise(300_000);
    let source = world.directory.join("source");
    fs::write(&source, &content).unwrap();
    for mode in ["-O", "-s"] {
        let remote = format!("{}@127.0.0.1:file{mode}", user.name);
        let back = world.directory.join(format!("back{mode}"));
        scp(&server, &user, &[mode, source.to_str().unwrap(), &remote]).success();
        scp(&server, &user, &[mode, &remote, back.to_str().unwrap()]).success();
        assert!(fs::read(&back).unwrap() == content, "{mode}");
        let missing = format!("{}@127.0.0.1:none", user.name);
        let ran = scp(&server, &user, &[mode, &missing, "/tmp"]);
        assert_ne!(ran.code(), Some(0), "{mode}");
    }
}

/// Directories, links, times and modes, in both directions.
fn tree(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let source = world.directory.join("tree");
    for directory in 0..5 {
        let path = source.join(format!("d {directory}/inner"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..20 {
            let file = path.join(format!("f{file}"));
            fs::write(&file, noise(file.as_os_str().len() * 37)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        }
    }
    let back = world.directory.join("back");
    let batch = format!(
        "put -rp {} t\nget -rp t {}\n",
        source.display(),
        back.display()
    );
    sftp(&server, &user, &[], &batch).success();
    let diff = clients::run(Command::new("diff").arg("-r").arg(&source).arg(&back));
    assert_eq!(diff.code(), Some(0), "{}", diff.out());
    let file = |root: &Path| fs::metadata(root.join("d 3/inner/f7")).unwrap();
    let (before, after) = (file(&source), file(&back));
    assert_eq!(before.permissions().mode(), after.permissions().mode());
    let seconds = |time: &fs::Metadata| {
        let since = time
            .modified()
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    assert_eq!(seconds(&before), seconds(&after));
}

/// ForceCommand internal-sftp: files and nothing else.
fn forced(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL, "ForceCommand internal-sftp -d /tmp # no shell"]);
    for remote in ["id", "internal-sftp", "sh -c id"] {
        let ran = clients::ssh_run(&server, &user, remote);
        assert_eq!(ran.code(), Some(1), "{remote}");
        assert_eq!(
            ran.out().trim_end(),
            "This service allows sftp connections only."
        );
    }
    let out = sftp(&server, &user, &[], "pwd\n").success();
    assert!(out.contains("/tmp"), "{out}");
}

fn chroot(world: &World) {
    let user = world.user();
    let root = world.directory.join(format!("root-{}", user.name));
    fs::create_dir_all(root.join("inside")).unwrap();
    chown(root.join("inside"), Some(user.id), Some(user.group_id)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let line = format!("ChrootDirectory {}/root-%u", world.directory.display());
    let server = world.server(&[
        INTERNAL,
        &line,
        "ForceCommand internal-sftp -d /inside -u 027",
    ]);
    let source = world.directory.join("source");
    fs::write(&source, noise(70_000)).unwrap();
    let batch = format!("pwd\nput {} new\nls -l\nls /\n", source.display());
    let out = sftp(&server, &user, &[], &batch).success();
    assert!(out.contains("Remote working directory: /inside"), "{out}");
    let stored = root.join("inside/new");
    assert!(fs::read(&stored).unwrap() == noise(70_000));
    let mode = fs::metadata(&stored).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let ran = sftp(&server, &user, &[], "get /etc/passwd /dev/null\n");
    assert_ne!(ran.code(), Some(0));
}

/// A root that the user could exchange is none.
fn bad_chroot(world: &World) {
    let user = world.user();
    let root = own_directory(&user, "root");
    let line = format!("ChrootDirectory {}", root.display());
    let server = world.server(&[INTERNAL, &line, "ForceCommand internal-sftp"]);
    assert_ne!(sftp(&server, &user, &[], "pwd\n").code(), Some(0));
}

fn options(world: &World) {
    let user = world.user();
    let server = world.server(&["Subsystem sftp internal-sftp -R -u 077 -l INFO -d /usr"]);
    let out = sftp(&server, &user, &[], "pwd\nget /etc/hostname /dev/null\n").success();
    assert!(out.contains("/usr"), "{out}");
    let home = user.home.display();
    for batch in [
        format!("put /etc/hostname {home}/new"),
        format!("mkdir {home}/new"),
        format!("rename {home}/.ssh {home}/new"),
        format!("rm {home}/.ssh/authorized_keys"),
        format!("chmod 777 {home}"),
        format!("ln -s x {home}/new"),
    ] {
        let ran = sftp(&server, &user, &[], &format!("{batch}\n"));
        assert_ne!(ran.code(), Some(0), "{batch}");
        assert!(!user.home.join("new").exists(), "{batch}");
    }
    assert!(user.home.join(".ssh/authorized_keys").exists());
}

fn request_lists(world: &World) {
    let user = world.user();
    let server = world.server(&["Subsystem sftp internal-sftp -P remove,rmdir"]);
    sftp(&server, &user, &[], "put /etc/hostname kept\n").success();
    let ran = sftp(&server, &user, &[], "rm kept\n");
    assert!(ran.err().contains("Permission denied"), "{}", ran.err());
    assert!(user.home.join("kept").exists());
    let allowed = "Subsystem sftp internal-sftp -p open,close,read,write,stat,lstat,fstat,realpath";
    let server = world.server(&[allowed]);
    sftp(
        &server,
        &user,
        &[],
        "put /etc/hostname other\nget other /dev/null\n",
    )
    .success();
    assert_ne!(sftp(&server, &user, &[], "mkdir d\n").code(), Some(0));
    // A slip of the pen in such a list must not open what it was to close.
    let server = world.server(&["Subsystem sftp internal-sftp -P remvoe"]);
    assert_ne!(sftp(&server, &user, &[], "pwd\n").code(), Some(0));
}

fn external_server(world: &World) {
    let user = world.user();
    let server = world.server(&["Subsystem sftp /usr/lib/openssh/sftp-server"]);
    sftp(&server, &user, &[], "put /etc/hostname there\n").success();
    if world.is_agent() {
        // What is not installed is served all the same.
        let server = world.server(&["Subsystem sftp /opt/none/sftp-server -R"]);
        sftp(&server, &user, &[], "get there /dev/null\n").success();
        assert_ne!(sftp(&server, &user, &[], "rm there\n").code(), Some(0));
        // In the place of OpenSSH's program.
        let line = format!(
            "Subsystem sftp {} sftp-server",
            world.agent_for_all().display()
        );
        let server = world.server(&[&line]);
        sftp(&server, &user, &[], "get there /dev/null\nrm there\n").success();
    }
}

/// `agent sftp-server` as sshd's subsystem, with options of sftp-server(8).
fn in_the_place_of_openssh_s(world: &World) {
    let user = world.user();
    let reference = world.reference();
    let line = format!(
        "Subsystem sftp {} sftp-server -u 027 -P rmdir -l INFO",
        world.agent_for_all().display()
    );
    let server = reference.server(&[&line]);
    let source = world.directory.join("source");
    fs::write(&source, noise(3_000_000)).unwrap();
    let back = world.directory.join("back");
    let batch = format!(
        "put {} there\nmkdir d\n-rmdir d\nls -l\nget there {}\nrm there\n",
        source.display(),
        back.display()
    );
    let ran = sftp(&server, &user, &[], &batch);
    assert!(ran.err().contains("Permission denied"), "{}", ran.err());
    let listing = ran.success();
    assert!(listing.contains("-rw-r-----"), "{listing}");
    assert!(fs::read(&back).unwrap() == noise(3_000_000));
    assert!(user.home.join("d").exists());
    scp(
        &server,
        &user,
        &[
            "-s",
            source.to_str().unwrap(),
            &format!("{}@127.0.0.1:d/x", user.name),
        ],
    )
    .success();
    assert!(fs::read(user.home.join("d/x")).unwrap() == noise(3_000_000));
}

/// Who leaves in the middle of a transfer leaves no process behind, also where the server waits for
/// a FIFO that nobody opens.
fn client_vanishes(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let fifo = user.home.join("fifo");
    clients::run(Command::new("mkfifo").arg(&fifo)).success();
    chown(&fifo, Some(user.id), Some(user.group_id)).unwrap();
    let endless = world.directory.join("endless");
    fs::File::create(&endless)
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    let put = format!("put {}\n", endless.display());
    for batch in [put.as_str(), "get fifo /dev/null\n"] {
        let mut command = Command::new("sftp");
        command
            .args(clients::ssh_options(&user.key))
            .args(["-P", &server.port.to_string(), "-b", "-"])
            .arg(format!("{}@127.0.0.1", user.name));
        let mut running = Running::start(&mut command, batch.into());
        std::thread::sleep(std::time::Duration::from_millis(700));
        running.child.kill().unwrap();
        drop(running);
        crate::processes::wait_until(
            "the server's processes to end",
            crate::server::LIMIT,
            || user.processes("").is_empty(),
        );
    }
}

/// A client that is killed while it sends: its ssh sees the end of the packets and says so.
fn client_ends_within_a_packet(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL]);
    let version = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    let part_of_a_path = [0, 0, 0, 64, 11, 0, 0];
    for bytes in [&version[..4], &[&version[..], &part_of_a_path].concat()] {
        let mut command = clients::ssh(&server, &user);
        command.args(["-s", "sftp"]);
        Running::start(&mut command, bytes.into()).wait();
        crate::processes::wait_until(
            "the server's processes to end",
            crate::server::LIMIT,
            || user.processes("").is_empty(),
        );
    }
}

/// Each thing that was done, or tried, is a line; from a chroot too, and with nothing forged in it.
fn audit(world: &World) {
    let user = world.user();
    let root = world.directory.join("root");
    let inside = root.join("in");
    fs::create_dir_all(&inside).unwrap();
    chown(&inside, Some(user.id), Some(user.group_id)).unwrap();
    let line = format!("ChrootDirectory {}", root.display());
    let lines = [INTERNAL, "SftpAudit yes", &line];
    let server = world.server(&lines);
    let source = world.directory.join("source");
    fs::write(&source, noise(70_001)).unwrap();
    let batch = format!(
        "cd in\nput {} a\nget a /dev/null\nrename a b\nln -s x l\nln b h\nmkdir d\nrmdir d\nchmod 600 b\nrm b\n-rm none\n\
         -mkdir /no\nmkdir \"q\\\"x\"\n",
        source.display()
    );
    sftp(&server, &user, &[], &batch).success();
    let who = format!("event=sftp user=\"{}\" address=127.0.0.1 port=", user.name);
    let wanted = [
        "op=open result=ok path=\"/in/a\"",
        "op=close result=ok path=\"/in/a\" read=0 written=70001",
        "op=close result=ok path=\"/in/a\" read=70001 written=0",
        "op=rename result=ok path=\"/in/a\" second=\"/in/b\"",
        "op=symlink result=ok path=\"x\" second=\"/in/l\"",
        "op=link result=ok path=\"/in/b\" second=\"/in/h\"",
        "op=mkdir result=ok path=\"/in/d\"",
        "op=rmdir result=ok path=\"/in/d\"",
        "op=setstat result=ok path=\"/in/b\"",
        "op=remove result=ok path=\"/in/b\"",
        "op=remove result=no-such-file path=\"/in/none\"",
        "op=mkdir result=permission-denied path=\"/no\"",
        "op=mkdir result=ok path=\"/in/q\\042x\"",
    ];
    for wanted in wanted {
        wait_for_event(&server, &who, wanted);
    }
    let quiet = world.server(&[INTERNAL]);
    sftp(&quiet, &user, &[], "mkdir d\n").success();
    assert!(!quiet.log_text().contains("event=sftp"));
}

/// A line of `who` that ends in `wanted`.
fn wait_for_event(server: &Server, who: &str, wanted: &str) {
    crate::processes::wait_until(wanted, crate::server::LIMIT, || {
        let log = server.log_text();
        log.lines()
            .any(|line| line.contains(who) && line.ends_with(wanted))
    });
}

/// The built-in scp tells the same; also what did not work.
fn audit_of_scp(world: &World) {
    let user = world.user();
    let server = world.server(&["SetEnv PATH=/nonexistent", "SftpAudit yes"]);
    let tree = world.directory.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(70_001)).unwrap();
    let local = |name: &str| world.directory.join(name).display().to_string();
    let remote = |path: &str| format!("{}@127.0.0.1:{path}", user.name);
    scp(
        &server,
        &user,
        &["-O", "-rp", &local("tree"), &remote("up")],
    )
    .success();
    scp(&server, &user, &["-O", &remote("up/file"), &local("down")]).success();
    scp(
        &server,
        &user,
        &["-O", &local("down"), &remote("/etc/not-for-users")],
    );
    scp(&server, &user, &["-O", &remote("none"), &local("x")]);
    let who = format!("event=scp user=\"{}\" address=127.0.0.1 port=", user.name);
    for wanted in [
        "op=mkdir result=ok path=\"up\"",
        "op=open result=ok path=\"up/file\"",
        "op=close result=ok path=\"up/file\" read=0 written=70001",
        "op=setstat result=ok path=\"up/file\"",
        "op=close result=ok path=\"up/file\" read=70001 written=0",
        "op=open result=permission-denied path=\"/etc/not-for-users\"",
        "op=open result=no-such-file path=\"none\"",
    ] {
        wait_for_event(&server, &who, wanted);
    }
}

/// A client that is killed while it sends: what arrived until then is told.
fn audit_of_broken_transfers(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL, "SftpAudit yes"]);
    let endless = world.directory.join("endless");
    let file = fs::File::create(&endless).unwrap();
    file.set_len(20 << 30).unwrap();
    let mut command = Command::new("sftp");
    command
        .args(clients::ssh_options(&user.key))
        .args(["-P", &server.port.to_string(), "-b", "-"])
        .arg(format!("{}@127.0.0.1", user.name));
    let batch = format!("put {} there\n", endless.display());
    let mut running = Running::start(&mut command, batch.into());
    let there = user.home.join("there");
    crate::processes::wait_until("some data", crate::server::LIMIT, || {
        fs::metadata(&there).is_ok_and(|stat| stat.len() > 1 << 20)
    });
    running.child.kill().unwrap();
    drop(running);
    let line = server.wait_for_log(&["op=close", "/there\""]);
    let (_, written) = line.rsplit_once(" written=").unwrap();
    let stored = fs::metadata(&there).unwrap().len();
    assert_eq!(written.parse(), Ok(stored), "{line}");
}

/// Who asks for a log of what is done gets a line for each thing, however fast they follow.
fn log_is_complete(world: &World) {
    let user = world.user();
    let server = world.server(&["Subsystem sftp internal-sftp -l INFO"]);
    let count = 700;
    let batch: String = (0..count)
        .map(|number| format!("mkdir d{number}\n"))
        .collect();
    sftp(&server, &user, &[], &batch).success();
    server.wait_for_log(&["session closed for local user"]);
    let log = server.log_text();
    let lines = log.lines().filter(|line| line.contains("mkdir name"));
    assert_eq!(lines.count(), count);
}

/// Where no program is called scp, the helper speaks its old protocol itself.
fn scp_without_a_program(world: &World) {
    let user = world.user();
    let server = world.server(&["SetEnv PATH=/nonexistent"]);
    let remote = |path: &str| format!("{}@127.0.0.1:{path}", user.name);
    let local = |name: &str| world.directory.join(name).display().to_string();
    let content = noise(200_000);
    fs::write(local("file"), &content).unwrap();
    scp(&server, &user, &["-O", &local("file"), &remote("up")]).success();
    assert!(fs::read(user.home.join("up")).unwrap() == content);
    scp(&server, &user, &["-O", &remote("up"), &local("down")]).success();
    assert!(fs::read(local("down")).unwrap() == content);
    // Over something longer, and into a directory.
    fs::write(local("short"), "short").unwrap();
    scp(&server, &user, &["-O", &local("short"), &remote("up")]).success();
    assert_eq!(fs::read(user.home.join("up")).unwrap(), b"short");
    own_directory(&user, "into");
    scp(
        &server,
        &user,
        &["-O", &local("short"), &local("file"), &remote("into")],
    )
    .success();
    assert!(fs::read(user.home.join("into/file")).unwrap() == content);
    // The user's shell expands what the client passes.
    scp(
        &server,
        &user,
        &["-O", &remote("~/into/s*"), &local("starred")],
    )
    .success();
    assert_eq!(fs::read(local("starred")).unwrap(), b"short");
    tree_by_scp(world, &user, &server);
    for (from, to) in [
        (local("file"), remote("/etc/not-for-users")),
        (remote("none"), local("x")),
        (remote("/etc/shadow"), local("x")),
        (remote("into"), local("x")),
    ] {
        let ran = scp(&server, &user, &["-O", &from, &to]);
        assert_eq!(ran.code(), Some(1), "{from} {to}");
        assert!(ran.err().contains("scp: "), "{}", ran.err());
    }
    assert!(!Path::new("/etc/not-for-users").exists());
}

fn tree_by_scp(world: &World, user: &User, server: &Server) {
    let source = world.directory.join("a tree");
    fs::create_dir_all(source.join("x y/z")).unwrap();
    fs::create_dir_all(source.join("empty")).unwrap();
    for number in 0..30 {
        let file = source.join(format!("x y/z/f{number}"));
        fs::write(&file, noise(number * 3000)).unwrap();
        let mode = [0o640, 0o4755, 0o400][number % 3];
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(source.join("x y"), fs::Permissions::from_mode(0o750)).unwrap();
    let back = world.directory.join("tree back");
    let remote = format!("{}@127.0.0.1:", user.name);
    let from = source.display().to_string();
    scp(
        server,
        user,
        &["-O", "-rp", &from, &format!("{remote}there")],
    )
    .success();
    let to = back.display().to_string();
    scp(server, user, &["-O", "-rp", &format!("{remote}there"), &to]).success();
    let diff = clients::run(Command::new("diff").arg("-r").arg(&source).arg(&back));
    assert_eq!(diff.code(), Some(0), "{}{}", diff.out(), diff.err());
    let there = user.home.join("there");
    let mode = |root: &Path, name: &str| {
        fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777
    };
    for name in ["x y", "x y/z/f0", "x y/z/f1", "x y/z/f2"] {
        assert_eq!(mode(&source, name), mode(&there, name), "{name}");
    }
    // Without -p no setuid bit comes along.
    scp(
        server,
        user,
        &["-O", "-r", &from, &format!("{remote}plain")],
    )
    .success();
    assert_eq!(mode(&user.home.join("plain"), "x y/z/f1"), 0o755);
}
