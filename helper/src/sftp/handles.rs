//! What a client has open. A bounded table; a name that was closed is not given again soon, so that a
//! client that confuses its handles gets an error and not another file.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit};

use super::request::HandleName;

/// Open at once, whatever the descriptor limit says: each keeps its path, of 4 KiB at most.
const HANDLES_MAX: usize = 4096;
/// Descriptors for standard input, output and error, the links and the tally, and what one request
/// opens.
const RESERVED: u64 = 7;
/// A name is a place in the table and, above these bits, how often that place was used.
const PLACE_BITS: u32 = 16;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// What is behind a handle.
#[derive(Debug)]
pub struct Open {
    /// What the client calls it; the table says.
    pub name: u32,
    /// The descriptor.
    pub descriptor: OwnedFd,
    /// As the client named it, for log lines.
    pub path: Vec<u8>,
    /// File or directory.
    pub form: Form,
    /// Bytes that were read from it.
    pub read_bytes: u64,
    /// Bytes that were written to it.
    pub written_bytes: u64,
}

/// How it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By SSH_FXP_OPEN.
    File {
        /// Writes go to the end, whatever their offset.
        appends: bool,
    },
    /// By SSH_FXP_OPENDIR.
    Directory,
}

/// The table.
#[derive(Debug, Default)]
pub struct Handles {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    uses: u32,
    open: Option<Open>,
}

impl Handles {
    /// Takes `open` in and names it; `None`: the table is full, and `open` is closed.
    pub fn add(&mut self, open: Open) -> Option<u32> {
        let index = match self.places.iter().position(|place| place.open.is_none()) {
            Some(index) => index,
            None if self.places.len() < HANDLES_MAX => {
                self.places.push(Place {
                    uses: 0,
                    open: None,
                });
                self.places.len() - 1
            }
            None => return None,
        };
        let place = self.places.get_mut(index)?;
        let name = u32::try_from(index).ok()? | place.uses << PLACE_BITS;
        place.open = Some(Open { name, ..open });
        place.uses = place.uses.wrapping_add(1);
        Some(name)
    }

    /// What `name` stands for.
    pub fn get(&mut self, name: HandleName) -> Option<&mut Open> {
        self.place(name)?.open.as_mut()
    }

    /// What `name` stands for, if that is a file.
    pub fn file(&mut self, name: HandleName) -> Option<&mut Open> {
        self.get(name).filter(|open| open.form != Form::Directory)
    }

    /// Takes it out of the table.
    pub fn remove(&mut self, name: HandleName) -> Option<Open> {
        self.place(name)?.open.take()
    }

    /// What two different names stand for, if both are files.
    pub fn two_files(&mut self, one: HandleName, other: HandleName) -> Option<[&mut Open; 2]> {
        self.file(one)?;
        self.file(other)?;
        let places = [place_index(one?)?, place_index(other?)?];
        let [one, other] = self.places.get_disjoint_mut(places).ok()?;
        Some([one.open.as_mut()?, other.open.as_mut()?])
    }

    /// Takes anything out of the table, at the end.
    pub fn remove_any(&mut self) -> Option<Open> {
        while let Some(place) = self.places.pop() {
            if place.open.is_some() {
                return place.open;
            }
        }
        None
    }

    fn place(&mut self, name: HandleName) -> Option<&mut Place> {
        let name = name?;
        let place = self.places.get_mut(place_index(name)?)?;
        (place.uses.wrapping_sub(1) & PLACE_MASK == name >> PLACE_BITS).then_some(place)
    }
}

fn place_index(name: u32) -> Option<usize> {
    usize::try_from(name & PLACE_MASK).ok()
}

/// How many handles a client may count on, for limits@openssh.com; 0 where nobody knows.
pub fn limit() -> u64 {
    let most = HANDLES_MAX as u64;
    match getrlimit(Resource::Nofile).current {
        Some(descriptors) => descriptors.saturating_sub(RESERVED).min(most),
        None => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> Open {
        let (descriptor, _) = rustix::pipe::pipe().expect("a descriptor");
        Open {
            name: 0,
            descriptor,
            path: path.into(),
            form: Form::File { appends: false },
            read_bytes: 0,
            written_bytes: 0,
        }
    }

    #[test]
    fn names_lead_to_what_they_were_given_for_and_to_nothing_after() {
        let mut handles = Handles::default();
        let a = handles.add(open("a"));
        let b = handles.add(open("b"));
        assert_ne!(a, b);
        assert_eq!(
            handles.get(b).map(|open| open.path.clone()),
            Some(b"b".to_vec())
        );
        assert!(handles.remove(a).is_some());
        assert!(handles.get(a).is_none() && handles.remove(a).is_none());
        let c = handles.add(open("c"));
        assert_ne!(a, c, "a place is used again under another name");
        assert!(handles.get(a).is_none());
        for wrong in [None, Some(u32::MAX), Some(7)] {
            assert!(handles.get(wrong).is_none());
        }
        assert!(handles.remove_any().is_some() && handles.remove_any().is_some());
        assert!(handles.remove_any().is_none());
    }

    #[test]
    fn a_place_that_was_used_very_often_still_works() {
        let mut handles = Handles::default();
        for _ in 0..140_000 {
            let (descriptor, _) = rustix::pipe::pipe().expect("a descriptor");
            let name = handles.add(Open {
                descriptor,
                ..open_again()
            });
            assert!(handles.remove(name).is_some());
        }
    }

    fn open_again() -> Open {
        open("x")
    }
}
