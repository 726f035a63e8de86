//! Everyday clients for files, each of which does the same to the same file in its own words.
//!
//! A row is a shell script. It finds the file `$HERE/file` and the directory `place` in the user's home
//! on the server, and leaves what it fetched in `$HERE/back`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::accounts::User;
use crate::clients::{self, Plink, Running};
use crate::files::{INTERNAL, noise};
use crate::harness::{Case, World};
use crate::passwords::{self, PASSWORD};
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("file_clients::openssh_sftp", |world| manage(world, SFTP)),
    Case::new("file_clients::openssh_scp", |world| copy(world, SCP)),
    Case::new("file_clients::openssh_scp_legacy", |world| {
        copy(world, SCP_LEGACY)
    }),
    Case::new("file_clients::psftp", |world| manage(world, PSFTP)),
    Case::new("file_clients::pscp", |world| copy(world, PSCP)),
    Case::new("file_clients::curl", |world| manage(world, CURL)),
    Case::new("file_clients::lftp", |world| manage(world, LFTP)),
    Case::new("file_clients::rclone", |world| manage(world, RCLONE)),
    Case::new("file_clients::paramiko", |world| manage(world, PARAMIKO)),
    Case::new("file_clients::asyncssh", |world| manage(world, ASYNCSSH)),
    Case::new("file_clients::node_ssh2", |world| manage(world, NODE)),
    Case::new("file_clients::sshfs", |world| manage(world, SSHFS)).needs("/dev/fuse"),
    Case::new("file_clients::rsync", |world| copy(world, RSYNC)),
    Case::new("file_clients::git", |world| copy(world, GIT)),
    Case::new("file_clients::borg", |world| copy(world, BORG)),
];

// Clients that manage files: store `place/kept` and `place/first`, rename the second one to
// `place/second name`, print what is in `place`, fetch and remove the renamed one.

const SFTP: &str = r#"
sftp -q -F "$CONFIG" -b - server <<END
put $HERE/file place/kept
put -p $HERE/file place/first
rename place/first "place/second name"
ls -l place
get "place/second name" $HERE/back
rm "place/second name"
END
"#;

const PSFTP: &str = r#"
cat >"$HERE/batch" <<END
put $HERE/file place/kept
put $HERE/file place/first
mv place/first "place/second name"
ls place
get "place/second name" $HERE/back
rm "place/second name"
END
psftp $PUTTY -b "$HERE/batch" "$NAME@127.0.0.1"
"#;

// Debian's libssh2 knows RSA with SHA-1 only: it logs in with a password.
const CURL: &str = r#"
to() { curl -sS -k -u "$NAME:$PASSWORD" "$@"; }
at=sftp://127.0.0.1:$PORT/~/place
to -T "$HERE/file" "$at/kept"
to -T "$HERE/file" -Q "-rename $REMOTE/first \"$REMOTE/second name\"" "$at/first"
to "$at/"
to -o "$HERE/back" -Q "-rm \"$REMOTE/second name\"" "$at/second%20name"
"#;

const LFTP: &str = r#"
lftp -c "
set sftp:connect-program \"ssh -a -x -F $CONFIG\"
set net:max-retries 1
set cmd:fail-exit yes
open -u $NAME, sftp://server
cd place
put -O . $HERE/file -o kept
put $HERE/file -o first
mv first 'second name'
ls
get 'second name' -o $HERE/back
rm 'second name'"
"#;

const RCLONE: &str = r#"
rclone() { command rclone --config /dev/null --retries 1 "$@"; }
at=":sftp,host=127.0.0.1,port=$PORT,user=$NAME,key_file=$KEY:place"
rclone copyto "$HERE/file" "$at/kept"
rclone copyto "$HERE/file" "$at/first"
rclone moveto "$at/first" "$at/second name"
rclone lsl "$at"
rclone copyto "$at/second name" "$HERE/back"
rclone deletefile "$at/second name"
"#;

const PARAMIKO: &str = concat!(
    "\"$PYTHON\" - <<'END'\n",
    include_str!("file_clients/with_paramiko.py"),
    "END\n"
);

const ASYNCSSH: &str = concat!(
    "\"$PYTHON\" - <<'END'\n",
    include_str!("file_clients/with_asyncssh.py"),
    "END\n"
);

const NODE: &str = concat!(
    "node - <<'END'\n",
    include_str!("file_clients/with_ssh2.js"),
    "END\n"
);

const SSHFS: &str = r#"
mkdir "$HERE/mounted"
sshfs -F "$CONFIG" server:place "$HERE/mounted"
trap 'fusermount3 -u "$HERE/mounted"' EXIT
cd "$HERE/mounted"
cp "$HERE/file" kept
cp "$HERE/file" first
mv first 'second name'
ls -l
cp 'second name' "$HERE/back"
rm 'second name'
cd /
"#;

// Clients that copy: store `place/kept` or something of their own, and fetch it.

const SCP: &str = r#"
scp -q -s -F "$CONFIG" "$HERE/file" server:place/kept
scp -q -s -F "$CONFIG" server:place/kept "$HERE/back"
"#;

const SCP_LEGACY: &str = r#"
scp -q -O -F "$CONFIG" "$HERE/file" server:place/kept
scp -q -O -F "$CONFIG" server:place/kept "$HERE/back"
"#;

const PSCP: &str = r#"
for protocol in -scp -sftp; do
    pscp $PUTTY $protocol -q "$HERE/file" "$NAME@127.0.0.1:place/kept"
    rm -f "$HERE/back"
    pscp $PUTTY $protocol -q "$NAME@127.0.0.1:place/kept" "$HERE/back"
done
"#;

const RSYNC: &str = r#"
copy() { rsync -a -e "ssh -F $CONFIG" "$@"; }
mkdir -p "$HERE/tree/a/b"
cp "$HERE/file" "$HERE/tree/a/b/file"
copy "$HERE/tree/" server:place/tree/
echo more >>"$HERE/tree/a/b/file"
cp "$HERE/file" "$HERE/tree/a/other"
copy -z --delete "$HERE/tree/" server:place/tree/
copy server:place/tree/ "$HERE/tree-back/"
diff -r "$HERE/tree" "$HERE/tree-back"
copy "$HERE/file" server:place/kept
copy server:place/kept "$HERE/back"
"#;

const GIT: &str = r#"
export GIT_SSH_COMMAND="ssh -F $CONFIG" GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
ssh -F "$CONFIG" server git init -q --bare place/repository
git init -q "$HERE/tree"
cp "$HERE/file" "$HERE/tree/file"
git -C "$HERE/tree" add file
git -C "$HERE/tree" -c user.name=test -c user.email=test@localhost commit -q -m first
git -C "$HERE/tree" push -q "server:place/repository" HEAD:refs/heads/main
git clone -q -b main "ssh://server/~/place/repository" "$HERE/tree-back"
mv "$HERE/tree-back/file" "$HERE/back"
"#;

const BORG: &str = r#"
export BORG_RSH="ssh -F $CONFIG" BORG_BASE_DIR="$HERE/borg" BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
at="ssh://server/./place/repository"
mkdir "$HERE/tree-back"
borg init -e none "$at"
cd "$HERE"
borg create "$at::first" file
cd tree-back
borg extract "$at::first"
mv file "$HERE/back"
"#;

/// Runs the row of a client that manages files.
fn manage(world: &World, script: &str) {
    let user = world.user();
    let (place, content, printed) = run(world, &user, script);
    assert!(printed.contains("second name"), "listed: {printed}");
    assert!(fs::read(place.join("kept")).unwrap() == content);
    let left: Vec<_> = fs::read_dir(&place).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Runs the row of a client that copies files.
fn copy(world: &World, script: &str) {
    run(world, &world.user(), script);
}

/// Runs a script; gives the user's directory, what was copied, and what the script printed.
fn run(world: &World, user: &User, script: &str) -> (std::path::PathBuf, Vec<u8>, String) {
    passwords::give_password(user);
    let place = user.home.join("place");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(user.id), Some(user.group_id)).unwrap();
    let content = noise(300_001);
    let here = &world.directory;
    fs::write(here.join("file"), &content).unwrap();
    let server = world.server(&[INTERNAL]);
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", script]).current_dir(here);
    for (name, value) in environment(world, &server, user, &place) {
        command.env(name, value);
    }
    let printed = Running::start(&mut command, Vec::new())
        .wait_within(LIMIT * 3)
        .success();
    assert!(fs::read(here.join("back")).unwrap() == content, "{printed}");
    (place, content, printed)
}

/// What scripts know of the server.
fn environment(
    world: &World,
    server: &Server,
    user: &User,
    place: &Path,
) -> Vec<(&'static str, String)> {
    let here = &world.directory;
    let config = here.join("client-config");
    let text = format!(
        "Host server\nHostName 127.0.0.1\nPort {}\nUser {}\nIdentityFile {}\nIdentitiesOnly yes\n\
         IdentityAgent none\nBatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n\
         GlobalKnownHostsFile /dev/null\nLogLevel ERROR\n",
        server.port,
        user.name,
        user.key.display()
    );
    fs::write(&config, text).unwrap();
    let putty = Plink::new(world, user).options(server).join(" ");
    vec![
        ("HERE", here.display().to_string()),
        ("HOME", here.display().to_string()),
        ("CONFIG", config.display().to_string()),
        ("PORT", server.port.to_string()),
        ("NAME", user.name.clone()),
        ("KEY", user.key.display().to_string()),
        ("PASSWORD", PASSWORD.to_owned()),
        ("REMOTE", place.display().to_string()),
        ("PUTTY", putty),
        ("PYTHON", clients::python().display().to_string()),
        ("NODE_PATH", clients::node_modules().display().to_string()),
        ("LC_ALL", "C.UTF-8".to_owned()),
    ]
}
