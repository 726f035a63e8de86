//! The fuzz targets on stable Rust: over their corpora, and over mutations that are the same each time.

use std::path::PathBuf;

use crate::bodies;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 2] = [
    ("sftp_request", bodies::request),
    ("scp_record", bodies::record),
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

#[test]
fn the_corpora_replay() {
    for (target, body) in TARGETS {
        corpus(target).iter().for_each(|input| body(input));
    }
}

#[test]
fn mutations_hold_too() {
    let rounds = std::env::var("AGENT_MUTATIONS").map_or(20_000, |text| text.parse().unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit.max(1) as u64).unwrap()
    };
    for (target, body) in TARGETS {
        let corpus = corpus(target);
        for _ in 0..rounds {
            let mut input = corpus[below(corpus.len())].clone();
            for _ in 0..1 + below(4) {
                let at = below(input.len());
                match below(4) {
                    0 if !input.is_empty() => input[at] = [0, 1, 4, 0x7f, 0x80, 0xff][below(6)],
                    1 => input.truncate(at),
                    2 => input.insert(at.min(input.len()), u8::try_from(below(256)).unwrap()),
                    _ if !input.is_empty() => input[at] ^= 1 << below(8),
                    _ => {}
                }
            }
            body(&input);
        }
    }
}
