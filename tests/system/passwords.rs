//! Passwords: every kind of hash, their age, chains of methods; nothing of them is ever logged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::accounts::{User, set_age, set_hash};
use crate::clients::{self, Ran};
use crate::harness::{Case, World};
use crate::processes::{self, wait_for, wait_until};
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("passwords::hashes_of_all_kinds", hashes_of_all_kinds),
    Case::new("passwords::who_is_refused", who_is_refused),
    Case::new("passwords::empty_ones", empty_ones),
    Case::new("passwords::one_prompt", one_prompt).only_agent(),
    Case::new("passwords::expired_is_changed", expired_is_changed).only_agent(),
    Case::new(
        "passwords::expired_is_changed_interactively",
        expired_is_changed_interactively,
    )
    .only_agent(),
    Case::new("passwords::expired_accounts", expired_accounts),
    Case::new(
        "passwords::told_before_they_expire",
        told_before_they_expire,
    ),
    Case::new("passwords::chains", chains),
    Case::new("passwords::nothing_is_logged", nothing_is_logged),
    Case::new("passwords::tries_are_counted", tries_are_counted),
    Case::new(
        "passwords::looked_at_without_rights",
        looked_at_without_rights,
    )
    .only_agent(),
    Case::new("passwords::no_copy_is_left", no_copy_is_left).only_agent(),
];

pub const PASSWORD: &str = "Corr3ct horse";

/// What the system's own crypt(3) makes of a password.
fn crypt(password: &str, setting: &str) -> String {
    let output = Command::new("perl")
        .args(["-e", "print crypt($ARGV[0], $ARGV[1])", password, setting])
        .output()
        .unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    assert!(hash.starts_with(setting.get(..3).unwrap()), "{hash}");
    hash
}

fn user_with(world: &World, hash: &str) -> User {
    let user = world.user();
    set_hash(&user, hash);
    user
}

fn user_with_password(world: &World) -> User {
    let user = world.user();
    give_password(&user);
    user
}

/// [`PASSWORD`] from now on.
pub fn give_password(user: &User) {
    set_hash(user, &crypt(PASSWORD, "$6$rounds=1000$saltsalt$"));
}

/// The client, answering its prompts in order; how it was asked is in the file beside the answers.
struct Typist {
    directory: PathBuf,
}

impl Typist {
    fn new(world: &World, answers: &[&str]) -> Self {
        let directory = world.directory.join(format!("typist-{}", world.number()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("answers"), answers.join("\n") + "\n").unwrap();
        let root = directory.display();
        let script = format!(
            "#!/bin/sh\necho \"$1\" >>{root}/prompts\n\
             sed -n \"$(wc -l <{root}/prompts)p\" {root}/answers\n"
        );
        let askpass = directory.join("askpass");
        fs::write(&askpass, script).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn ssh(&self, server: &Server, user: &User, methods: &str) -> Command {
        let mut ssh = Command::new("ssh");
        // The first value of an option counts.
        ssh.args(["-o", "BatchMode=no", "-o", "LogLevel=INFO", "-o"])
            .arg(format!("PreferredAuthentications={methods}"))
            .args(["-o", "NumberOfPasswordPrompts=1"])
            .args(clients::ssh_options(&user.key))
            .args(["-p", &server.port.to_string()])
            .arg(format!("{}@127.0.0.1", user.name))
            .env("SSH_ASKPASS", self.directory.join("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force");
        ssh
    }

    fn prompts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("prompts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn log_in(world: &World, server: &Server, user: &User, methods: &str, answers: &[&str]) -> Ran {
    let typist = Typist::new(world, answers);
    clients::run(typist.ssh(server, user, methods).arg("echo in"))
}

fn hashes_of_all_kinds(world: &World) {
    let server = world.server(&[]);
    for setting in [
        "$y$j9T$8kXGzJ0uUQ3a5Fh1Fq9v./$",
        "$6$saltsalt$",
        "$6$rounds=20000$saltsalt$",
        "$5$saltsalt$",
        "$2b$06$abcdefghijklmnopqrstuu",
    ] {
        let user = user_with(world, &crypt(PASSWORD, setting));
        let ran = log_in(world, &server, &user, "password", &[PASSWORD]);
        assert_eq!(ran.success(), "in\n", "{setting}");
        log_in(world, &server, &user, "password", &["Corr3ct hors"]).refused();
        // The key still does.
        let ran = clients::ssh_run(&server, &user, "echo key");
        assert_eq!(ran.success(), "key\n");
    }
}

fn who_is_refused(world: &World) {
    let right = crypt(PASSWORD, "$6$rounds=1000$saltsalt$");
    let server = world.server(&[]);
    for hash in ["*", &format!("!{right}"), "!", "*LK*"] {
        let user = user_with(world, hash);
        for typed in [PASSWORD, hash, "x"] {
            log_in(world, &server, &user, "password", &[typed]).refused();
        }
    }
    let user = user_with(world, &right);
    for typed in ["", "corr3ct horse", &right, &"x".repeat(900)] {
        log_in(world, &server, &user, "password", &[typed]).refused();
    }
    let ran = log_in(world, &server, &user, "password", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");
    let off = world.server(&["PasswordAuthentication no"]);
    log_in(world, &off, &user, "password", &[PASSWORD]).refused();
}

fn empty_ones(world: &World) {
    let user = user_with(world, "");
    let without_key = |server: &Server, methods: &str| {
        let typist = Typist::new(world, &[""]);
        let mut ssh = typist.ssh(server, &user, methods);
        clients::run(ssh.args(["-o", "PubkeyAuthentication=no", "echo in"]))
    };
    let server = world.server(&[]);
    without_key(&server, "password").refused();
    let open = world.server(&["PermitEmptyPasswords yes"]);
    // `none` is enough.
    assert_eq!(without_key(&open, "password").success(), "in\n");
    let off = world.server(&["PermitEmptyPasswords yes", "PasswordAuthentication no"]);
    without_key(&off, "password").refused();
    // No step of a chain is done by it.
    let chain = world.server(&[
        "PermitEmptyPasswords yes",
        "AuthenticationMethods publickey,password",
    ]);
    without_key(&chain, "password").refused();
    // Whoever has a password needs it.
    let other = user_with_password(world);
    let typist = Typist::new(world, &[""]);
    clients::run(typist.ssh(&open, &other, "password").arg("echo in")).refused();
}

fn one_prompt(world: &World) {
    let user = user_with_password(world);
    let server = world.server(&["PasswordAuthentication no"]);
    let typist = Typist::new(world, &[PASSWORD]);
    let ran = clients::run(
        typist
            .ssh(&server, &user, "keyboard-interactive")
            .arg("echo in"),
    );
    assert_eq!(ran.success(), "in\n");
    let prompts = typist.prompts();
    assert_eq!(prompts.len(), 1, "{prompts:?}");
    assert!(prompts[0].trim_end().ends_with("Password:"), "{prompts:?}");
    server.wait_for_log(&["Accepted keyboard-interactive for", &user.name, " ssh2"]);
    server.wait_for_log(&[
        "event=login",
        &user.name,
        "methods=keyboard-interactive key=-",
    ]);
    log_in(world, &server, &user, "keyboard-interactive", &["wrong"]).refused();
    server.wait_for_log(&["Failed keyboard-interactive for", &user.name]);
}

fn shadow_line(user: &User) -> String {
    let text = fs::read_to_string("/etc/shadow").unwrap();
    let start = format!("{}:", user.name);
    text.lines()
        .find(|line| line.starts_with(&start))
        .unwrap()
        .to_owned()
}

fn expired_is_changed(world: &World) {
    const NEW: &str = "another horse";
    let user = user_with_password(world);
    set_age(&user, &["--lastday", "0"]);
    let server = world.server(&["KbdInteractiveAuthentication no"]);
    // The wrong one does not even get as far as that.
    log_in(world, &server, &user, "password", &["wrong", NEW, NEW]).refused();
    // Too short, or the same again: asked once more.
    let answers = [PASSWORD, PASSWORD, "short", "short", PASSWORD, NEW, NEW];
    let typist = Typist::new(world, &answers);
    let ran = clients::run(typist.ssh(&server, &user, "password").arg("echo in"));
    assert!(ran.err().contains("password has expired"), "{}", ran.err());
    assert!(ran.err().contains("too short"), "{}", ran.err());
    assert_eq!(ran.success(), "in\n");
    let line = shadow_line(&user);
    assert!(
        line.contains(":$6$rounds=1000$"),
        "the kind of hash changed"
    );
    assert!(!line.contains(":0:0:"), "still to be changed: {line}");
    log_in(world, &server, &user, "password", &[PASSWORD]).refused();
    let ran = log_in(world, &server, &user, "password", &[NEW]);
    assert_eq!(ran.success(), "in\n");
    server.wait_for_log(&["the password of", &user.name, "was changed"]);
}

fn expired_is_changed_interactively(world: &World) {
    const NEW: &str = "a third horse";
    let user = user_with(world, &crypt(PASSWORD, "$y$j75$abcdefgh$"));
    set_age(&user, &["--lastday", "2020-01-01", "--maxdays", "30"]);
    let server = world.server(&[]);
    let answers = [PASSWORD, PASSWORD, NEW, "typo", PASSWORD, NEW, NEW];
    let typist = Typist::new(world, &answers);
    let ran = clients::run(
        typist
            .ssh(&server, &user, "keyboard-interactive")
            .arg("echo in"),
    );
    assert_eq!(ran.success(), "in\n");
    assert_eq!(
        typist.prompts().len(),
        answers.len(),
        "{:?}",
        typist.prompts()
    );
    assert!(shadow_line(&user).contains(":$y$j75$"));
    log_in(world, &server, &user, "password", &[PASSWORD]).refused();
    let ran = log_in(world, &server, &user, "password", &[NEW]);
    assert_eq!(ran.success(), "in\n");
}

fn expired_accounts(world: &World) {
    let server = world.server(&[]);
    // The account itself: no key helps.
    let user = user_with_password(world);
    set_age(&user, &["--expiredate", "2020-01-01"]);
    clients::ssh_run(&server, &user, "echo in").refused();
    log_in(world, &server, &user, "password", &[PASSWORD]).refused();
    set_age(&user, &["--expiredate", "-1"]);
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.success(), "in\n");
    if !world.is_agent() {
        return;
    }
    // The password, for longer than it may be: the key does.
    set_age(
        &user,
        &[
            "--lastday",
            "2020-01-01",
            "--maxdays",
            "30",
            "--inactive",
            "5",
        ],
    );
    log_in(world, &server, &user, "password", &[PASSWORD]).refused();
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.success(), "in\n");
}

/// At a terminal only, as the last login; by key only of the account.
fn told_before_they_expire(world: &World) {
    let server = world.server(&[]);
    let user = user_with_password(world);
    let today = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs()
        / 86_400;
    set_age(
        &user,
        &[
            "--lastday",
            &(today - 27).to_string(),
            "--maxdays",
            "30",
            "--warndays",
            "7",
            "--expiredate",
            &(today + 5).to_string(),
        ],
    );
    let password = "Your password will expire in 3 days.";
    let account = "Your account will expire in 5 days.";
    let typist = Typist::new(world, &[PASSWORD]);
    let at_terminal = |ssh: &mut Command| {
        clients::Running::start(ssh.arg("-tt"), b"exit\n".to_vec())
            .wait()
            .success()
    };
    let said = at_terminal(&mut typist.ssh(&server, &user, "password"));
    assert!(said.contains(account) && said.contains(password), "{said}");
    let said = at_terminal(&mut clients::ssh(&server, &user));
    assert!(said.contains(account) && !said.contains(password), "{said}");
    let ran = log_in(world, &server, &user, "password", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");
    set_age(&user, &["--warndays", "2", "--expiredate", "-1"]);
    let typist = Typist::new(world, &[PASSWORD]);
    let said = at_terminal(&mut typist.ssh(&server, &user, "password"));
    assert!(!said.contains("will expire"), "{said}");
}

fn chains(world: &World) {
    let user = user_with_password(world);
    let both = world.server(&["AuthenticationMethods publickey,password"]);
    let ran = log_in(world, &both, &user, "publickey,password", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");
    both.wait_for_log(&["Partial publickey for", &user.name]);
    both.wait_for_log(&["Accepted password for", &user.name]);
    // Either alone is not enough, nor is the second with a wrong first.
    let ran = clients::ssh_run(&both, &user, "echo in");
    assert_eq!((ran.out().as_str(), ran.code()), ("", Some(255)));
    log_in(world, &both, &user, "password", &[PASSWORD]).refused();
    log_in(world, &both, &user, "publickey,password", &["wrong"]).refused();
    let other = world.user();
    let wrong_key = User {
        key: other.key.clone(),
        name: user.name.clone(),
        home: PathBuf::new(),
        id: u32::MAX,
        group_id: u32::MAX,
    };
    log_in(world, &both, &wrong_key, "publickey,password", &[PASSWORD]).refused();
    std::mem::forget(wrong_key);

    let either = world.server(&["AuthenticationMethods password,publickey publickey,password"]);
    let ran = log_in(world, &either, &user, "password,publickey", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");
    let ran = log_in(world, &either, &user, "publickey,password", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");

    // A chain with a method that is off is left out; the other one counts.
    let partly = world.server(&[
        "PasswordAuthentication no",
        "AuthenticationMethods publickey,password publickey",
    ]);
    let ran = clients::ssh_run(&partly, &user, "echo in");
    assert_eq!(ran.success(), "in\n");
}

fn nothing_is_logged(world: &World) {
    let user = user_with_password(world);
    let server = world.server(&["LogLevel DEBUG3"]);
    let ran = log_in(world, &server, &user, "password", &[PASSWORD]);
    assert_eq!(ran.success(), "in\n");
    log_in(world, &server, &user, "password", &["wrong-guess-here"]).refused();
    if world.is_agent() {
        let typed = [PASSWORD];
        log_in(world, &server, &user, "keyboard-interactive", &typed).success();
    }
    server.wait_for_log(&["Accepted password for", &user.name]);
    server.wait_for_log(&["Failed password for", &user.name]);
    let log = server.log_text();
    for secret in [PASSWORD, "wrong-guess", "$6$rounds"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

fn tries_are_counted(world: &World) {
    let user = user_with_password(world);
    let server = world.server(&["MaxAuthTries 2"]);
    let typist = Typist::new(world, &["a", "b", "c", PASSWORD]);
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", "NumberOfPasswordPrompts=4"]);
    let prepared = typist.ssh(&server, &user, "password");
    ssh.args(prepared.get_args());
    for (name, value) in prepared.get_envs() {
        ssh.env(name, value.unwrap());
    }
    let ran = clients::run(ssh.arg("echo in"));
    assert_eq!(ran.code(), Some(255), "{}", ran.out());
    assert!(
        ran.err().contains("Too many authentication failures"),
        "{}",
        ran.err()
    );
    assert_eq!(typist.prompts().len(), 2);
}

/// The process that computes is nobody, sees no file and may make few system calls.
fn looked_at_without_rights(world: &World) {
    // Slow enough to be looked at.
    let user = user_with(world, &crypt(PASSWORD, "$6$rounds=3000000$saltsalt$"));
    let server = world.server(&[]);
    let typist = Typist::new(world, &[PASSWORD]);
    let mut ssh = typist.ssh(&server, &user, "password");
    let login = clients::Running::start(ssh.arg("echo in"), Vec::new());
    let status = wait_for("a password check without rights", LIMIT, || {
        let check = server.processes("agent: password").pop()?;
        let status = fs::read_to_string(format!("/proc/{}/status", check.id)).ok()?;
        let root = fs::read_dir(format!("/proc/{}/root", check.id)).ok()?;
        // Last of all come the system calls.
        (status.contains("Seccomp:\t2\n") && root.count() == 0).then_some(status)
    });
    for line in [
        "Uid:\t64314\t64314\t64314\t64314\n",
        "Gid:\t64314\t64314\t64314\t64314\n",
        "CapEff:\t0000000000000000\n",
        "CapBnd:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(status.contains(line), "{line}{status}");
    }
    assert_eq!(login.wait().success(), "in\n");
    wait_until("its end", LIMIT, || {
        server.processes("agent: password").is_empty()
    });
    // Whoever hangs up does not leave it behind for ever.
    let mut impatient = typist.ssh(&server, &user, "password");
    let mut impatient = clients::Running::start(impatient.arg("echo in"), Vec::new());
    wait_until("a check", LIMIT, || {
        !server.processes("agent: password").is_empty()
    });
    impatient.child.kill().unwrap();
    wait_until("its end", LIMIT * 2, || {
        server.processes("agent: password").is_empty()
    });
}

/// Neither in what a process uses nor in what it gave back.
fn no_copy_is_left(world: &World) {
    const SECRET: &str = "unlikely-Passw0rd-in-memory-7719";
    const NEW: &str = "another-unlikely-0ne-in-memory-3362";
    let user = user_with(world, &crypt(SECRET, "$6$rounds=1000$saltsalt$"));
    let server = world.server(&[]);
    let typist = Typist::new(world, &[SECRET]);
    let mut ssh = typist.ssh(&server, &user, "password");
    let mut login = clients::Running::start_open(ssh.arg("cat"));
    server.wait_for_log(&["event=login", &user.name, "methods=password"]);
    let typist = Typist::new(world, &[SECRET]);
    let mut ssh = typist.ssh(&server, &user, "keyboard-interactive");
    let mut other = clients::Running::start_open(ssh.arg("cat"));
    server.wait_for_log(&["event=login", &user.name, "methods=keyboard-interactive"]);
    set_age(&user, &["--lastday", "0"]);
    let ran = log_in(
        world,
        &server,
        &user,
        "password",
        &[SECRET, SECRET, NEW, NEW],
    );
    assert_eq!(ran.success(), "in\n");
    log_in(world, &server, &user, "password", &[SECRET]).refused();
    // Monitor, strangers' net, the user's net, a helper and its session for each login.
    let family = processes::family(server.id());
    assert!(family.len() >= 5, "{family:?}");
    for process in &family {
        for secret in [SECRET, NEW] {
            let copies = copies_in_memory(process.id, secret.as_bytes());
            assert_eq!(copies, 0, "{secret} in {}", process.command);
        }
    }
    // What is looked for would be found.
    assert!(copies_in_memory(server.id(), user.name.as_bytes()) > 0);
    drop(login.child.stdin.take());
    drop(other.child.stdin.take());
}

/// How often `secret` stands in what a process may write to.
fn copies_in_memory(process: u32, secret: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let mut copies = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (number(start), number(end));
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // Mappings come and go, and some cannot be read.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            let is_copy = |window: &&[u8]| *window == secret;
            copies += bytes.windows(secret.len()).filter(is_copy).count();
        }
    }
    copies
}
