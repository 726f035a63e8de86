//! Each way of executing the helper, and what happens where one of them is barred.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use agent::config::options::HelperMode;
use agent::memexec::{HelperImage, Mode, prepare, prepare_in};

use crate::harness::*;

/// A helper out of `image` that logs in and runs something.
fn assert_serves(image: &mut HelperImage) {
    require_root();
    let home = Home::new();
    let mut helper = Helper::start_from(image);
    let net = helper.accept(&policy(&home));
    let mut login = Login { helper, net, home };
    assert_eq!(
        login.run("id -u"),
        (format!("{UID}\n"), String::new(), EXIT_0)
    );
}

#[test]
fn a_sealed_memfd_serves() {
    let mut image = prepare(HelperMode::Auto, &own_image()).unwrap();
    assert_eq!(image.mode(), Mode::SealedMemfd);
    assert!(image.refusals().is_empty());
    assert_serves(&mut image);
}

#[test]
fn an_unnamed_file_serves() {
    let mut image = prepare(HelperMode::File, &own_image()).unwrap();
    assert_eq!(image.mode(), Mode::UnnamedFile);
    assert_serves(&mut image);
}

#[test]
fn the_own_executable_serves_as_the_user_with_one_thread_too() {
    let mut image = prepare(HelperMode::OwnExecutable, &own_image()).unwrap();
    assert_eq!(image.mode(), Mode::OwnExecutable);
    assert_serves(&mut image);
    let home = Home::new();
    let mut helper = Helper::start_from(&mut image);
    let _net = helper.accept(&policy(&home));
    assert_eq!(helper.status("Threads"), "1");
    assert_eq!(helper.status("Name"), "agent-helper");
    let cmdline = fs::read(format!("/proc/{}/cmdline", helper.pid.as_raw_pid())).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&cmdline),
        "agent-helper: tester@192.0.2.7\0"
    );
}

#[test]
fn a_setting_of_one_way_does_not_take_another() {
    let error =
        prepare_in(HelperMode::File, &own_image(), vec![PathBuf::from("/proc")]).unwrap_err();
    let modes: Vec<Mode> = error.refusals.iter().map(|refusal| refusal.mode).collect();
    assert_eq!(modes, [Mode::UnnamedFile, Mode::UnlinkedFile]);
}

/// Runs an ignored test of this file in namespaces of its own, where it may change what it likes.
fn run_in_namespaces(name: &str) {
    require_root();
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--test-threads=1", name])
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn bar_memfds() {
    assert_eq!(std::process::id(), 1, "only in a PID namespace of its own");
    fs::write("/proc/sys/vm/memfd_noexec", "2").expect("vm.memfd_noexec (Linux 6.3)");
}

/// An empty file system with `options`, in this mount namespace only.
fn mount(options: &str) -> PathBuf {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs", "/mnt"])
        .status()
        .expect("mount");
    assert!(status.success());
    PathBuf::from("/mnt")
}

#[test]
fn barred_memfds_lead_to_a_file() {
    run_in_namespaces("modes::inside_barred_memfds_lead_to_a_file");
}

#[test]
#[ignore = "run by the test without `inside_`, in namespaces"]
fn inside_barred_memfds_lead_to_a_file() {
    bar_memfds();
    let mut image = prepare(HelperMode::Auto, &own_image()).unwrap();
    assert_eq!(image.mode(), Mode::UnnamedFile);
    let [refusal] = image.refusals() else {
        panic!("{:?}", image.refusals())
    };
    assert_eq!(
        refusal.to_string(),
        "sealed memfd: Permission denied (os error 13)"
    );
    assert_serves(&mut image);
}

#[test]
fn noexec_everywhere_leads_to_the_own_executable() {
    run_in_namespaces("modes::inside_noexec_everywhere_leads_to_the_own_executable");
}

#[test]
#[ignore = "run by the test without `inside_`, in namespaces"]
fn inside_noexec_everywhere_leads_to_the_own_executable() {
    bar_memfds();
    let directory = mount("noexec");
    let mut image = prepare_in(HelperMode::Auto, &own_image(), vec![directory]).unwrap();
    assert_eq!(image.mode(), Mode::OwnExecutable);
    let modes: Vec<Mode> = image
        .refusals()
        .iter()
        .map(|refusal| refusal.mode)
        .collect();
    assert_eq!(
        modes,
        [Mode::SealedMemfd, Mode::UnnamedFile, Mode::UnlinkedFile]
    );
    for refusal in &image.refusals()[1..] {
        assert!(
            refusal.reason.contains("exec failed: Permission denied"),
            "{refusal}"
        );
    }
    assert_serves(&mut image);
}

#[test]
fn a_launch_refused_later_moves_on() {
    run_in_namespaces("modes::inside_a_launch_refused_later_moves_on");
}

#[test]
#[ignore = "run by the test without `inside_`, in namespaces"]
fn inside_a_launch_refused_later_moves_on() {
    bar_memfds();
    let directory = mount("exec");
    let mut image = prepare_in(HelperMode::Auto, &own_image(), vec![directory.clone()]).unwrap();
    assert_eq!(image.mode(), Mode::UnnamedFile);
    let remount = |options: &str| {
        let status = Command::new("mount")
            .args(["-o", options])
            .arg(&directory)
            .status()
            .expect("mount");
        assert!(status.success());
    };
    remount("remount,noexec");
    assert_serves(&mut image);
    assert_eq!(image.mode(), Mode::OwnExecutable);
    let reasons: Vec<String> = image.refusals().iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons[1],
        "unnamed file: launch failed at run time: Permission denied (os error 13)"
    );
    assert_eq!(reasons.len(), 3, "{reasons:?}");
}

#[test]
fn without_proc_and_dev_an_unlinked_file_serves() {
    run_in_namespaces("modes::inside_without_proc_and_dev_an_unlinked_file_serves");
}

#[test]
#[ignore = "run by the test without `inside_`, in namespaces"]
fn inside_without_proc_and_dev_an_unlinked_file_serves() {
    bar_memfds();
    let directory = mount("exec");
    let status = Command::new("umount")
        .args(["--lazy", "/proc"])
        .status()
        .expect("umount");
    assert!(status.success());
    // What lies below may be another /proc: covered by an empty one. And no /dev/null either.
    for path in ["/proc", "/dev"] {
        let mut mount = Command::new("mount");
        assert!(
            mount
                .args(["-t", "tmpfs", "tmpfs", path])
                .status()
                .unwrap()
                .success()
        );
    }
    let mut image = prepare_in(HelperMode::Auto, &own_image(), vec![directory]).unwrap();
    assert_eq!(image.mode(), Mode::UnlinkedFile);
    assert_serves(&mut image);
    // A memfd needs no /proc either, nor does the agent's own file.
    let mut image = prepare(HelperMode::OwnExecutable, &own_image()).unwrap();
    assert_serves(&mut image);
}

#[test]
fn a_launch_is_quick() {
    let own = own_image();
    let started = std::time::Instant::now();
    let mut image = prepare(HelperMode::Memfd, &own).unwrap();
    let prepared = started.elapsed();
    let started = std::time::Instant::now();
    let helper = Helper::start_from(&mut image);
    let said_hello = started.elapsed();
    println!("prepared in {prepared:?}, hello after {said_hello:?}");
    // Far above what it takes, for a loaded machine; what it takes is in docs/benchmarks.md.
    assert!(prepared.as_millis() < 500 && said_hello.as_millis() < 500);
    drop(helper);
}

#[test]
fn an_idle_helper_is_small() {
    let login = Login::new();
    let path = format!("/proc/{}/smaps_rollup", login.helper.pid.as_raw_pid());
    let text = fs::read_to_string(path).unwrap();
    let kib = |name: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect(name);
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let anonymous = kib("Anonymous:");
    println!("anonymous {anonymous} KiB, PSS {} KiB", kib("Pss:"));
    assert!(anonymous <= 40, "{text}");
}
