//! How clients with a protocol of their own writing go about it, where that differs from OpenSSH's
//! client: WinSCP, FileZilla, and libraries.

use crate::client::{self, Client, END_OF_FILE, OK};
use crate::twins::Place;

const WRITE_CREATE_TRUNCATE: u32 = 2 | 8 | 16;
const FAILURE: u32 = 4;

/// A line of `ls -l` cut into mode, links, owner, group, size, date and name: FileZilla parses it, and
/// older clients know of a file only what stands there.
fn columns(line: &str) -> (Vec<&str>, &str) {
    let mut rest = line;
    let mut columns = Vec::new();
    for _ in 0..8 {
        rest = rest.trim_start();
        let (column, behind) = rest.split_once(' ').unwrap();
        columns.push(column);
        rest = behind;
    }
    (columns, rest)
}

#[test]
fn long_names_are_lines_of_ls() {
    let place = Place::new("long-names");
    std::fs::write(place.0.join("a  file with blanks"), [0; 1234]).unwrap();
    std::fs::create_dir(place.0.join("directory")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.0.join("link")).unwrap();
    let mut client = Client::start(&place.0, &[]);
    let handle = client.open_directory(&place.0).unwrap();
    let mut answer = client.request(client::READDIR, &handle);
    let mut kinds = Vec::new();
    for _ in 0..answer.u32() {
        let name = String::from_utf8(answer.string()).unwrap();
        let line = String::from_utf8(answer.string()).unwrap();
        answer.fields.drain(..32);
        let (columns, last) = columns(&line);
        assert_eq!(last, name, "{line}");
        assert_eq!(columns[0].len(), 10, "{line}");
        for number in [columns[1], columns[4], columns[6]] {
            assert!(number.parse::<u64>().is_ok(), "{line}");
        }
        assert_eq!(columns[5].len(), 3, "a month: {line}");
        if !name.starts_with('.') {
            kinds.push((columns[0].as_bytes()[0], columns[4] == "1234"));
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [(b'-', true), (b'd', false), (b'l', false)]);
}

/// Version 3 says nothing of fewer: WinSCP refuses an answer without its language.
#[test]
fn a_status_has_three_fields() {
    let place = Place::new("status");
    let mut client = Client::start(&place.0, &[]);
    for (kind, fields) in [
        (client::MKDIR, [client::string("d"), vec![0; 4]].concat()),
        (client::REMOVE, client::string("none")),
        (client::OPENDIR, client::string("none")),
        (99, Vec::new()),
    ] {
        let mut answer = client.request(kind, &fields);
        assert_eq!(answer.kind, client::STATUS);
        let code = answer.u32();
        let message = String::from_utf8(answer.string()).unwrap();
        assert!(!message.is_empty(), "{code}");
        assert_eq!(answer.string(), b"", "the language");
        assert!(answer.fields.is_empty(), "{:?}", answer.fields);
    }
}

/// WinSCP's upload: under another name, then times, then a rename that must not overwrite, for which it
/// asks twice.
#[test]
fn an_upload_under_another_name() {
    let place = Place::new("filepart");
    let (part, file) = (place.0.join("file.filepart"), place.0.join("file"));
    std::fs::write(&file, "old").unwrap();
    let mut client = Client::start(&place.0, &[]);
    let mut here = client.request(client::REALPATH, &client::string("."));
    assert_eq!(here.u32(), 1);
    assert_eq!(here.string(), place.0.as_os_str().as_encoded_bytes());
    let handle = client.open(&part, WRITE_CREATE_TRUNCATE).unwrap();
    // Its packets are never longer than 32 KiB, and it does not wait for each.
    let data = vec![b'x'; 32_000];
    let asked: Vec<u32> = (0..20_u64)
        .map(|number| {
            let offset = (number * 32_000).to_be_bytes();
            let fields = [&handle, &offset[..], &client::string(&data)].concat();
            client.ask(client::WRITE, &fields)
        })
        .collect();
    for id in asked {
        assert_eq!(client.answer(id).status(), OK);
    }
    assert_eq!(client.close(&handle), OK);
    let times = [0_u8, 0, 0, 8, 0x41, 0, 0, 0, 0x42, 0, 0, 0];
    let set = [client::path(&part), times.to_vec()].concat();
    assert_eq!(client.request(client::SETSTAT, &set).status(), OK);
    let both = [client::path(&part), client::path(&file)].concat();
    assert_eq!(client.request(client::RENAME, &both).status(), FAILURE);
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
    assert_eq!(
        client
            .request(client::REMOVE, &client::path(&file))
            .status(),
        OK
    );
    assert_eq!(client.request(client::RENAME, &both).status(), OK);
    let stat = std::fs::metadata(&file).unwrap();
    assert_eq!(stat.len(), 640_000);
    let modified = std::os::unix::fs::MetadataExt::mtime(&stat);
    assert_eq!(modified, 0x4200_0000);
    // Downloads ask for more than there is until they are told that there is no more.
    let handle = client.open(&file, 1).unwrap();
    assert_eq!(client.read(&handle, 639_990, 32_768).unwrap().len(), 10);
    assert_eq!(client.read(&handle, 640_000, 32_768), Err(END_OF_FILE));
}
