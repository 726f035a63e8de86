//! Becoming the user: what the kernel says of the helper before and after.

use agent_helper::frame::{HelperToMonitor, Policy};

use crate::harness::*;

#[test]
fn before_the_login_it_is_root_with_one_thread_and_three_kinds_of_descriptors() {
    require_root();
    let helper = Helper::start();
    assert_eq!(helper.status("Uid"), "0 0 0 0");
    assert_eq!(helper.status("Threads"), "1");
    assert_eq!(helper.status("Name"), "agent-helper");
    assert_eq!(helper.status("NoNewPrivs"), "0");
    assert_eq!(helper.status("SigIgn"), "0000000000000000");
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", helper.pid.as_raw_pid())).unwrap();
    assert_eq!(String::from_utf8_lossy(&cmdline), "agent-helper: [auth]\0");
    let mut targets: Vec<String> =
        std::fs::read_dir(format!("/proc/{}/fd", helper.pid.as_raw_pid()))
            .unwrap()
            .map(|entry| {
                std::fs::read_link(entry.unwrap().path())
                    .unwrap()
                    .display()
                    .to_string()
            })
            .map(|target| target.split(':').next().unwrap_or_default().to_owned())
            .collect();
    targets.sort();
    assert_eq!(
        targets,
        [
            "/dev/null",
            "/dev/null",
            "/dev/null",
            "anon_inode",
            "socket"
        ]
    );
}

#[test]
fn after_the_login_every_id_is_the_users_and_no_capability_is_left() {
    let login = Login::new();
    let helper = &login.helper;
    assert_eq!(helper.status("Uid"), format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(helper.status("Gid"), format!("{GID} {GID} {GID} {GID}"));
    assert_eq!(helper.status("Groups"), format!("{GID} 64992 64993"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(helper.status(set), "0000000000000000", "{set}");
    }
    // sudo in a session must still work.
    assert_eq!(helper.status("NoNewPrivs"), "0");
    assert_eq!(helper.status("Threads"), "1");
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", helper.pid.as_raw_pid())).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&cmdline),
        "agent-helper: tester@192.0.2.7\0"
    );
    // Not dumpable: its files in /proc belong to root, the user cannot attach to it.
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(format!("/proc/{}/mem", helper.pid.as_raw_pid()))
        .unwrap()
        .uid();
    assert_eq!(owner, 0);
}

#[test]
fn root_may_log_in_too() {
    let mut login = Login::with(|policy| {
        policy.identity.uid = 0;
        policy.identity.gid = 0;
        policy.identity.groups = vec![0];
    });
    assert_eq!(login.run("id -u; id -G").0, "0\n0\n");
}

#[test]
fn limits_score_and_mask_are_what_a_session_should_have() {
    let mut login = Login::with(|policy| {
        policy.nofile = (777, 888);
        policy.oom_score_adj = Some("123".into());
    });
    let (output, ..) = login.run("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; umask");
    assert_eq!(output, "777\n888\n123\n0022\n");
}

fn failure(change: impl FnOnce(&mut Policy)) -> (String, Helper, End, Home) {
    require_root();
    let home = Home::new();
    let mut policy = policy(&home);
    change(&mut policy);
    let mut helper = Helper::start();
    let net = helper.accept_only(&policy);
    let (answer, _) = helper.monitor.receive::<HelperToMonitor>();
    let HelperToMonitor::Failed { step, .. } = answer else {
        panic!("not a failure: {answer:?}")
    };
    (
        String::from_utf8_lossy(&step).into_owned(),
        helper,
        net,
        home,
    )
}

#[test]
fn a_failed_step_is_named_and_ends_the_helper_before_anything_is_served() {
    let (step, mut helper, mut net, _home) = failure(|policy| policy.identity.uid = u32::MAX);
    assert_eq!(step, "identity");
    assert!(net.is_closed());
    helper.wait();
}

#[test]
fn without_a_change_of_identity_the_helper_must_already_be_it() {
    let (step, ..) = failure(|policy| policy.change_identity = false);
    assert_eq!(step, "identity");
}

#[test]
fn a_server_of_an_ordinary_user_serves_that_user_without_any_change() {
    require_root();
    // The test's own identity stands for the user's.
    let mut login = Login::with(|policy| {
        policy.change_identity = false;
        policy.identity.uid = 0;
        policy.identity.groups = vec![GID];
    });
    assert_eq!(login.run("id -u").0, "0\n");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let groups = own
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap();
    let expected: Vec<&str> = groups.split_whitespace().collect();
    assert_eq!(
        login.helper.status("Groups"),
        expected.join(" "),
        "left as they were"
    );
}

#[test]
fn a_chroot_that_others_can_write_to_is_refused() {
    let (step, ..) = failure(|policy| policy.chroot = Some(policy.identity.home.clone()));
    assert_eq!(step, "chroot: bad ownership or modes of a component");
    let (step, ..) = failure(|policy| policy.chroot = Some("relative".into()));
    assert_eq!(step, "chroot");
    let (step, ..) = failure(|policy| policy.chroot = Some("/etc/passwd".into()));
    assert_eq!(step, "chroot");
    let (step, ..) = failure(|policy| policy.chroot = Some("/does/not/exist".into()));
    assert_eq!(step, "chroot");
}

#[test]
fn a_proper_chroot_becomes_the_root_and_a_missing_home_there_is_no_message() {
    // /usr is root's all the way, and holds a shell where /bin is a link into it.
    let mut login = Login::with(|policy| {
        policy.chroot = Some("/usr/".into());
        policy.identity.shell = "/bin/missing-shell".into();
    });
    let root = std::fs::read_link(format!("/proc/{}/root", login.helper.pid.as_raw_pid())).unwrap();
    assert_eq!(root.to_str(), Some("/usr"));
    let (_, errors, ending) = login.run("true");
    assert_eq!(errors, "/bin/missing-shell: No such file or directory\n");
    assert_eq!(ending, agent_helper::frame::Ending::Exit { status: 1 });
}

#[test]
fn inheritable_capabilities_of_a_container_do_not_stay() {
    require_root();
    use rustix::thread::{capabilities, set_capabilities};
    // In a thread of its own: capabilities are per thread, and the helper is launched from here.
    std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.inheritable = sets.permitted;
        set_capabilities(None, sets).unwrap();
        let login = Login::new();
        assert_eq!(login.helper.status("CapInh"), "0000000000000000");
        assert_eq!(login.helper.status("CapPrm"), "0000000000000000");
    })
    .join()
    .unwrap();
}
