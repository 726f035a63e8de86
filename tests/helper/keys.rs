//! Reading key files as the user: what is read, what is refused, and that nothing holds it up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use agent_helper::frame::{HelperToMonitor, Identity};

use crate::harness::*;

const LIMIT: u32 = 64 * 1024;

fn setting() -> (Helper, Home) {
    require_root();
    (Helper::start(), Home::new())
}

#[test]
fn files_are_read_in_order_and_the_helper_stays_root() {
    let (mut helper, home) = setting();
    let first = home.write(".ssh/authorized_keys", "ssh-ed25519 AAAA\n");
    let missing = home.0.join(".ssh/authorized_keys2");
    let large = home.write("large", &"x".repeat(10_000));
    let files = [first.as_path(), &missing, &large];
    let read = read_keys(&mut helper, &identity(&home), &files, true, LIMIT).unwrap();
    assert_eq!(
        read,
        [
            KeyFile::Content("ssh-ed25519 AAAA\n".into()),
            KeyFile::Missing,
            KeyFile::Content("x".repeat(10_000))
        ]
    );
    assert_eq!(helper.status("Uid"), "0 0 0 0");
    // And again: a client tries more than one key.
    let again = read_keys(&mut helper, &identity(&home), &[&first], true, LIMIT).unwrap();
    assert_eq!(again, [KeyFile::Content("ssh-ed25519 AAAA\n".into())]);
}

#[test]
fn files_of_others_are_read_with_the_users_rights_only() {
    let (mut helper, home) = setting();
    let files = [Path::new("/etc/shadow")];
    let read = read_keys(&mut helper, &identity(&home), &files, false, LIMIT).unwrap();
    assert_eq!(read, [KeyFile::Failed(libc::EACCES)]);
    // Through a link in the user's own directory neither.
    symlink("/etc/shadow", home.0.join("keys")).unwrap();
    let read = read_keys(
        &mut helper,
        &identity(&home),
        &[&home.0.join("keys")],
        false,
        LIMIT,
    );
    assert_eq!(read.unwrap(), [KeyFile::Failed(libc::EACCES)]);
}

#[test]
fn a_fifo_a_device_and_a_directory_are_refused_at_once() {
    let (mut helper, home) = setting();
    let fifo = home.0.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    own(&fifo);
    let link = home.0.join("link");
    symlink(&fifo, &link).unwrap();
    let files = [
        fifo.as_path(),
        &link,
        Path::new("/dev/zero"),
        Path::new("/dev/tty"),
        &home.0,
    ];
    let read = read_keys(&mut helper, &identity(&home), &files, true, LIMIT).unwrap();
    let refused =
        |path: &Path| KeyFile::Refused(format!("{} is not a regular file", path.display()));
    let expected = [
        refused(&fifo),
        refused(&fifo),
        refused(Path::new("/dev/zero")),
        refused(Path::new("/dev/tty")),
        refused(&home.0),
    ];
    assert_eq!(read, expected);
}

#[test]
fn an_endless_file_is_cut_at_the_limit() {
    let (mut helper, home) = setting();
    let sparse = home.write("sparse", "");
    fs::File::options()
        .write(true)
        .open(&sparse)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let exact = home.write("exact", "12345");
    let files = [sparse.as_path(), &exact];
    let read = read_keys(&mut helper, &identity(&home), &files, true, 5).unwrap();
    assert_eq!(
        read,
        [
            KeyFile::Truncated("\0".repeat(5)),
            KeyFile::Content("12345".into())
        ]
    );
    let none = read_keys(&mut helper, &identity(&home), &[&exact], true, 0).unwrap();
    assert_eq!(none, [KeyFile::Truncated(String::new())]);
}

#[test]
fn strict_modes_refuse_what_others_could_have_written() {
    let (mut helper, home) = setting();
    let file = home.write(".ssh/authorized_keys", "key\n");
    let directory = home.0.join(".ssh");
    let good = KeyFile::Content("key\n".into());
    let refused = |what: &str, path: &Path| {
        KeyFile::Refused(format!(
            "bad ownership or modes for {what} {}",
            path.display()
        ))
    };
    let set = |path: &Path, mode: u32, uid: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(uid), Some(GID)).unwrap();
    };
    let other = UID + 5;
    // (path, mode, owner), what is expected
    let table: [(&Path, u32, u32, KeyFile); 8] = [
        (&file, 0o644, UID, KeyFile::Content("key\n".into())),
        (&file, 0o644, 0, KeyFile::Content("key\n".into())),
        (&file, 0o644, other, refused("file", &file)),
        (&file, 0o664, UID, refused("file", &file)),
        (&file, 0o646, UID, refused("file", &file)),
        (&directory, 0o775, UID, refused("directory", &directory)),
        (&directory, 0o755, other, refused("directory", &directory)),
        (&home.0, 0o777, UID, refused("directory", &home.0)),
    ];
    for (path, mode, uid, expected) in table {
        let before = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        set(path, mode, uid);
        let read = read_keys(&mut helper, &identity(&home), &[&file], true, LIMIT).unwrap();
        assert_eq!(read, [expected], "{} {mode:o} {uid}", path.display());
        // Without StrictModes the same file is read.
        let read = read_keys(&mut helper, &identity(&home), &[&file], false, LIMIT).unwrap();
        assert_eq!(read, [KeyFile::Content("key\n".into())]);
        set(path, before, UID);
    }
    // Where a link leads is what counts, up to / when that is outside the home directory.
    let elsewhere = Home::new();
    let target = elsewhere.write("keys", "key\n");
    fs::remove_file(&file).unwrap();
    symlink(&target, &file).unwrap();
    let read = read_keys(&mut helper, &identity(&home), &[&file], true, LIMIT).unwrap();
    assert_eq!(read, [refused("directory", elsewhere.0.parent().unwrap())]);
    fs::remove_file(&file).unwrap();
    let inside = home.write("dotfiles/keys", "key\n");
    symlink(&inside, &file).unwrap();
    let read = read_keys(&mut helper, &identity(&home), &[&file], true, LIMIT).unwrap();
    assert_eq!(read, [good]);
}

#[test]
fn an_identity_that_cannot_be_taken_reads_nothing() {
    let (mut helper, home) = setting();
    let file = home.write("keys", "key\n");
    let nobody = Identity {
        uid: u32::MAX,
        ..identity(&home)
    };
    assert_eq!(
        read_keys(&mut helper, &nobody, &[&file], false, LIMIT),
        None
    );
    // The helper itself goes on.
    assert!(read_keys(&mut helper, &identity(&home), &[&file], false, LIMIT).is_some());
}

#[test]
fn a_reader_that_nobody_listens_to_ends_with_the_helper() {
    let (mut helper, home) = setting();
    let file = home.write("keys", &"x".repeat(1 << 20));
    // A pipe that nobody reads: the reader blocks on it.
    let (reader, writer) = std::io::pipe().unwrap();
    let request = agent_helper::frame::MonitorToHelper::ReadKeys {
        identity: identity(&home),
        change_identity: true,
        files: vec![file.to_str().unwrap().into()],
        strict_modes: false,
        limit_bytes: 1 << 20,
    };
    helper.monitor.send(&request, &[&writer.into()]);
    let children = format!("/proc/{0}/task/{0}/children", helper.pid.as_raw_pid());
    let child = || {
        fs::read_to_string(&children)
            .unwrap()
            .trim()
            .parse::<i32>()
            .ok()
    };
    eventually("a reader", || child().is_some());
    let pid = rustix::process::Pid::from_raw(child().unwrap()).unwrap();
    eventually("the user", || {
        status_of(pid, "Uid") == format!("{UID} {UID} {UID} {UID}")
    });
    assert_eq!(status_of(pid, "CapPrm"), "0000000000000000");
    // A second request means that nobody waits for the first any more.
    let (_second_reader, second) = std::io::pipe().unwrap();
    helper.monitor.send(&request, &[&second.into()]);
    let (answer, _) = helper.monitor.receive::<HelperToMonitor>();
    assert_eq!(answer, HelperToMonitor::KeysRead { ok: false });
    eventually("the reader's end", || {
        rustix::process::test_kill_process(pid).is_err()
    });
    let (gone, _) = pair();
    helper.monitor = End::new(gone);
    helper.wait();
    eventually("the reader's end", || {
        rustix::process::test_kill_process(pid).is_err()
    });
    drop(reader);
}

#[test]
fn a_command_runs_as_its_user_with_nothing_of_ours() {
    let (mut helper, home) = setting();
    // Without a pipe: the shell would have its ends among its descriptors for a moment.
    let script = "id -u; id -ru; echo $0 $1; ls -x -w 200 /proc/$$/fd; env | grep -v ^PWD | sort";
    let arguments = ["/bin/sh", "-c", script, "name", "an argument"];
    let ran = run_command(&mut helper, &identity(&home), &arguments, LIMIT).unwrap();
    let [KeyFile::Content(output)] = ran.as_slice() else {
        panic!("{ran:?}")
    };
    let lines: Vec<&str> = output.lines().collect();
    let uid = UID.to_string();
    assert_eq!(lines[..3], [uid.as_str(), &uid, "name an argument"]);
    let descriptors: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let names: Vec<&str> = lines[4..]
        .iter()
        .map(|line| line.split('=').next().unwrap())
        .filter(|name| !["_", "SHLVL", "OLDPWD"].contains(name))
        .collect();
    assert_eq!(names, ["HOME", "LOGNAME", "PATH", "USER"]);
    assert_eq!(helper.status("Uid"), "0 0 0 0");
}

#[test]
fn a_command_that_does_not_succeed_gives_a_reason_instead_of_a_file() {
    let (mut helper, home) = setting();
    let user = identity(&home);
    let mut refused = |arguments: &[&str], limit: u32, why: &str| {
        let ran = run_command(&mut helper, &user, arguments, limit).unwrap();
        match ran.as_slice() {
            [KeyFile::Refused(sentence)] => assert!(sentence.contains(why), "{sentence}"),
            other => panic!("{arguments:?}: {other:?}"),
        }
    };
    let shell = |script| ["/bin/sh", "-c", script];
    refused(&shell("echo key; exit 3"), LIMIT, "failed, status 3");
    refused(&shell("echo key; kill -9 $$"), LIMIT, "ended by a signal");
    refused(&shell("yes"), 10_000, "too much");
    refused(&["/nonexistent/command"], LIMIT, "does not exist");
    refused(&["relative"], LIMIT, "does not exist");
    refused(&["/tmp"], LIMIT, "not a regular file");
    refused(&["/etc/passwd"], LIMIT, "failed, status 127");
    refused(&["/bin/sh", "-c", "echo a\0b"], LIMIT, "failed, status 127");
    refused(&[], LIMIT, "does not exist");
    // The user's own file could be the user's own keys.
    let theirs = home.write("command", "#!/bin/sh\necho key\n");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    refused(&[theirs.to_str().unwrap()], LIMIT, "is not safe");
}

#[test]
fn a_command_ends_with_all_that_it_started() {
    let (mut helper, home) = setting();
    let (reader, writer) = std::io::pipe().unwrap();
    let script = "sleep 765432 & echo started; sleep 765432";
    let words = ["/bin/sh", "-c", script];
    let request = agent_helper::frame::MonitorToHelper::RunCommand {
        identity: identity(&home),
        change_identity: true,
        arguments: words.map(Into::into).to_vec(),
        limit_bytes: LIMIT,
    };
    helper.monitor.send(&request, &[&writer.into()]);
    let sleeps = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let commands = processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
        commands
            .filter(|command| command == b"sleep\x00765432\x00")
            .count()
    };
    eventually("both", || sleeps() == 2);
    let (gone, _) = pair();
    helper.monitor = End::new(gone);
    helper.wait();
    eventually("their end", || sleeps() == 0);
    drop(reader);
}
