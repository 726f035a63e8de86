//! Lines of /etc/shadow (shadow(5)), and what their dates mean.

#![forbid(unsafe_code)]

/// An account's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Login name.
    pub name: &'a [u8],
    /// The hash, or what stands in its place.
    pub hash: &'a [u8],
    /// Day of the last change; 0: must be changed.
    pub changed: Option<i64>,
    /// Days until it must be changed.
    pub maximum: Option<i64>,
    /// So many days before that its user is told.
    pub warns: Option<i64>,
    /// Days after that until it cannot even be changed any more.
    pub inactive: Option<i64>,
}

/// What the dates say of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Good,
    /// It must be changed.
    Expired,
    /// It counts no more.
    ExpiredForGood,
}

/// A line that is about the account, and broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

const FIELDS_MIN: usize = 2;

/// Finds the line of `name`; the first counts, as for libc.
pub fn find<'a>(file: &'a [u8], name: &[u8]) -> Option<Result<Entry<'a>, Malformed>> {
    lines(file)
        .find(|line| line.split(|byte| *byte == b':').next() == Some(name))
        .map(parse)
}

/// The lines of a shadow file.
pub fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n')
}

/// Takes a line apart.
pub fn parse(line: &[u8]) -> Result<Entry<'_>, Malformed> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    if fields.len() < FIELDS_MIN || line.contains(&0) {
        return Err(Malformed);
    }
    let number = |index: usize| days(fields.get(index).copied().unwrap_or(&[]));
    Ok(Entry {
        name: fields.first().copied().unwrap_or(&[]),
        hash: fields.get(1).copied().unwrap_or(&[]),
        changed: number(2)?,
        maximum: number(4)?,
        warns: number(5)?,
        inactive: number(6)?,
    })
}

/// A number of days; empty and negative ones mean that there is none.
fn days(field: &[u8]) -> Result<Option<i64>, Malformed> {
    if field.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(field).map_err(|_| Malformed)?;
    let number: i64 = text.parse().map_err(|_| Malformed)?;
    Ok((number >= 0).then_some(number))
}

impl Entry<'_> {
    /// How the password stands on `today`. A clock that runs before the last change proves nothing.
    pub fn age(&self, today: i64) -> Age {
        if self.changed == Some(0) {
            return Age::Expired;
        }
        let (Some(changed), Some(maximum)) = (self.changed, self.maximum) else {
            return Age::Good;
        };
        let over = today.saturating_sub(changed).saturating_sub(maximum);
        match self.inactive {
            _ if over <= 0 => Age::Good,
            Some(inactive) if over > inactive => Age::ExpiredForGood,
            _ => Age::Expired,
        }
    }

    /// The days until it must be changed, where there are so few that the user is to be told.
    pub fn few_days_left(&self, today: i64) -> Option<i64> {
        let expires = self.changed?.saturating_add(self.maximum?);
        let left = expires.saturating_sub(today);
        (left >= 0 && left <= self.warns?).then_some(left)
    }
}

/// The file with the hash of `name` replaced and the day of its change set; `None` where there is
/// no such line.
pub fn with_hash(file: &[u8], name: &[u8], hash: &[u8], today: i64) -> Option<Vec<u8>> {
    let day = today.to_string();
    let mut changed = Vec::with_capacity(file.len() + hash.len());
    let mut found = false;
    for (index, line) in lines(file).enumerate() {
        if index > 0 {
            changed.push(b'\n');
        }
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        match fields.as_mut_slice() {
            [first, old, dates @ ..] if !found && first == &name => {
                found = true;
                *old = hash;
                if let Some(last_change) = dates.first_mut() {
                    *last_change = day.as_bytes();
                }
                changed.extend_from_slice(&fields.join(&b':'));
            }
            _ => changed.extend_from_slice(line),
        }
    }
    found.then_some(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FILE: &[u8] = b"root:*:19000:0:99999:7:::\nal:$6$x$y:20000:0:90:7:10::\nbob:!:::::::";

    #[test]
    fn the_first_line_of_a_name_counts() {
        let entry = find(FILE, b"al").unwrap().unwrap();
        assert_eq!(entry.hash, b"$6$x$y");
        assert_eq!(
            (entry.changed, entry.maximum, entry.inactive),
            (Some(20000), Some(90), Some(10))
        );
        assert_eq!(find(FILE, b"bob").unwrap().unwrap().hash, b"!");
        assert_eq!(find(FILE, b"a"), None);
        assert_eq!(find(FILE, b""), None);
        assert_eq!(find(b"al", b"al"), Some(Err(Malformed)));
        assert_eq!(find(b"al:x:soon:::::", b"al"), Some(Err(Malformed)));
        assert_eq!(find(b"al:x", b"al").unwrap().unwrap().changed, None);
    }

    #[test]
    fn passwords_grow_old_as_shadow_5_says() {
        let age = |line: &str, today| parse(line.as_bytes()).unwrap().age(today);
        assert_eq!(age("a:x:20000:0:90:7:::", 20090), Age::Good);
        assert_eq!(age("a:x:20000:0:90:7:::", 20091), Age::Expired);
        assert_eq!(age("a:x:20000:0:90:7:10::", 20100), Age::Expired);
        assert_eq!(age("a:x:20000:0:90:7:10::", 20101), Age::ExpiredForGood);
        assert_eq!(age("a:x:0:0:99999:7:::", 20000), Age::Expired);
        assert_eq!(age("a:x:0:::::", 20000), Age::Expired);
        assert_eq!(age("a:x:20000:0:-1:7:::", 90000), Age::Good);
        assert_eq!(age("a:x::0:90:7:::", 90000), Age::Good);
        // A clock that starts in 1970.
        assert_eq!(age("a:x:20000:0:90:7:::", 0), Age::Good);
        assert_eq!(
            age("a:x:9223372036854775807:0:9223372036854775807:7:::", 0),
            Age::Good
        );
    }

    #[test]
    fn users_are_told_some_days_before() {
        let left = |line: &str, today| parse(line.as_bytes()).unwrap().few_days_left(today);
        assert_eq!(left("a:x:20000:0:90:7:::", 20082), None);
        assert_eq!(left("a:x:20000:0:90:7:::", 20083), Some(7));
        assert_eq!(left("a:x:20000:0:90:7:::", 20090), Some(0));
        assert_eq!(left("a:x:20000:0:90:7:::", 20091), None);
        assert_eq!(left("a:x:20000:0:90::::", 20090), None);
        assert_eq!(left("a:x:20000::::::", 20090), None);
        let last = "a:x:9223372036854775807:0:9223372036854775807:7:::";
        assert_eq!(left(last, i64::MAX), Some(0));
        assert!(parse(b"a:x:20000:0:90:soon:::").is_err());
    }

    #[test]
    fn only_the_line_of_the_account_changes() {
        let changed = with_hash(FILE, b"al", b"$5$a$b", 20200).unwrap();
        assert_eq!(
            changed,
            b"root:*:19000:0:99999:7:::\nal:$5$a$b:20200:0:90:7:10::\nbob:!:::::::"
        );
        assert_eq!(with_hash(FILE, b"carol", b"x", 1), None);
        assert_eq!(
            with_hash(FILE, b"bob", b"x", 7).unwrap(),
            [&FILE[..FILE.len() - 12], b"bob:x:7::::::"].concat()
        );
    }
}
