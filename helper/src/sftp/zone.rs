//! The time of the day where the machine stands: `/etc/localtime`, for dates in long names.
//!
//! Without the file, as in most chroots, it is UTC. Beyond the last change that the file lists, the
//! rule in its footer would count; the offset of the last change does instead, which is wrong for
//! some months of years after 2037. Source: tzfile(5), RFC 9636.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::packet::{Fields, Malformed};
use crate::path::read_regular;

/// The largest zone has 3.5 KiB.
const FILE_MAX_BYTES: usize = 64 * 1024;
/// Bytes of the header.
const HEADER_BYTES: usize = 44;

/// Offsets from UTC and when they begin.
#[derive(Debug, Default)]
pub struct Zone {
    /// Seconds since 1970 from which on the offset in seconds holds.
    changes: Vec<(i64, i32)>,
    /// The offset before the first change.
    first: i32,
}

impl Zone {
    /// The machine's zone.
    pub fn of_machine() -> Self {
        let content = read_regular(b"/etc/localtime", FILE_MAX_BYTES).unwrap_or_default();
        Self::parse(&content).unwrap_or_default()
    }

    /// Seconds to add to UTC at `time`.
    pub fn offset(&self, time: i64) -> i64 {
        let behind = self.changes.partition_point(|(begin, _)| *begin <= time);
        let offset = behind
            .checked_sub(1)
            .and_then(|index| self.changes.get(index))
            .map_or(self.first, |(_, offset)| *offset);
        i64::from(offset)
    }

    /// Reads a file of version 2 or later: its second part has 64-bit times.
    fn parse(content: &[u8]) -> Result<Self, Malformed> {
        let first = Counts::decode(content)?;
        let second = content
            .get(HEADER_BYTES + first.data_bytes(4)..)
            .ok_or(Malformed)?;
        let counts = Counts::decode(second)?;
        let data = second.get(HEADER_BYTES..).ok_or(Malformed)?;
        let (times, rest) = data.split_at_checked(counts.times * 8).ok_or(Malformed)?;
        let (kinds, rest) = rest.split_at_checked(counts.times).ok_or(Malformed)?;
        let offset = |kind: usize| {
            let entry = rest.get(kind * 6..).unwrap_or_default();
            Fields::new(entry).u32().map(u32::cast_signed)
        };
        let mut zone = Self {
            changes: Vec::with_capacity(counts.times),
            first: offset(0)?,
        };
        let mut times = Fields::new(times);
        for &kind in kinds {
            zone.changes
                .push((times.u64()?.cast_signed(), offset(usize::from(kind))?));
        }
        Ok(zone)
    }
}

struct Counts {
    utc_marks: usize,
    standard_marks: usize,
    leaps: usize,
    times: usize,
    kinds: usize,
    characters: usize,
}

impl Counts {
    fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let numbers = content.strip_prefix(b"TZif").ok_or(Malformed)?;
        if matches!(numbers.first(), None | Some(0)) {
            return Err(Malformed);
        }
        let mut fields = Fields::new(numbers.get(16..).ok_or(Malformed)?);
        let mut count = || {
            usize::try_from(fields.u32()?)
                .ok()
                .filter(|&count| count <= FILE_MAX_BYTES)
                .ok_or(Malformed)
        };
        Ok(Self {
            utc_marks: count()?,
            standard_marks: count()?,
            leaps: count()?,
            times: count()?,
            kinds: count()?,
            characters: count()?,
        })
    }

    fn data_bytes(&self, time_bytes: usize) -> usize {
        self.times * (time_bytes + 1)
            + self.kinds * 6
            + self.characters
            + self.leaps * (time_bytes + 4)
            + self.standard_marks
            + self.utc_marks
    }
}

/// Year, month (0 to 11), day, hour and minute of `time`, in seconds since 1970 of the wanted zone.
pub fn date(time: i64) -> (i64, usize, u32, u32, u32) {
    let (days, seconds) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // Counted from 1 March of year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let in_next_year = month >= 10;
    let year = year_of_era + era * 400 + i64::from(in_next_year);
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    let month = usize::try_from(if in_next_year { month - 10 } else { month + 2 }).unwrap_or(0);
    (
        year,
        month,
        small(day),
        small(seconds / 3600),
        small(seconds / 60 % 60),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (time, wanted) in [
            (0, (1970, 0, 1, 0, 0)),
            (951_782_400, (2000, 1, 29, 0, 0)),
            (1_700_000_000, (2023, 10, 14, 22, 13)),
            (4_102_444_799, (2099, 11, 31, 23, 59)),
            (-1, (1969, 11, 31, 23, 59)),
        ] {
            assert_eq!(date(time), wanted, "{time}");
        }
    }

    #[test]
    fn offsets_change_when_the_file_says_so() {
        let Ok(content) = std::fs::read("/usr/share/zoneinfo/Europe/Vienna") else {
            // A machine without zones; the layout is covered below.
            return;
        };
        let zone = Zone::parse(&content).expect("a zone");
        assert_eq!(zone.offset(1_700_000_000), 3600);
        assert_eq!(zone.offset(1_690_000_000), 7200);
        assert_eq!(zone.offset(i64::MIN), 3921);
    }

    #[test]
    fn a_file_of_our_own_is_read() {
        let mut file = Vec::new();
        for (counts, times) in [([0; 6], &[][..]), ([0, 0, 0, 1, 2, 0], &[1000_i64])] {
            file.extend_from_slice(b"TZif2");
            file.extend_from_slice(&[0; 15]);
            for count in counts {
                file.extend_from_slice(&u32::to_be_bytes(count));
            }
            for time in times {
                file.extend_from_slice(&time.to_be_bytes());
                file.push(1);
                for offset in [0_i32, -3600] {
                    file.extend_from_slice(&offset.to_be_bytes());
                    file.extend_from_slice(&[0, 0]);
                }
            }
        }
        let zone = Zone::parse(&file).expect("a zone");
        assert_eq!((zone.offset(999), zone.offset(1000)), (0, -3600));
        for len in 0..file.len() - 1 {
            let _ = Zone::parse(&file[..len]);
        }
        assert!(Zone::parse(b"TZif").is_err() && Zone::parse(b"").is_err());
    }
}
