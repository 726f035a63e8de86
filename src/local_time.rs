//! Calendar time of this machine's zone: to read dates in key files, and to write log lines.
//!
//! The zone is the C library's (TZ, /etc/localtime; UTC where there is neither). `unsafe` is for the
//! two C calls, since the standard library has no calendar.

#![allow(unsafe_code)]

/// A moment on the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// 0 is Sunday.
    pub weekday: u8,
}

/// Names of the months as log files and `last` have them.
pub const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Names of the days, from Sunday.
pub const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The local calendar time of `unix_s` seconds since 1970; `None` for a moment beyond the C
/// library's range.
pub fn to_local(unix_s: i64) -> Option<Civil> {
    // Its type is time_t, whatever that is here.
    #[allow(
        clippy::useless_conversion,
        reason = "time_t has 32 bits on some targets"
    )]
    let clock = unix_s.try_into().ok()?;
    let mut broken = empty();
    // SAFETY: both pointers are to live, exclusively held (the second) values of the types that
    // localtime_r(3) asks for; it reads the zone under its own lock and this program never calls
    // setenv after its start.
    let result = unsafe { libc::localtime_r(&raw const clock, &raw mut broken) };
    if result.is_null() {
        return None;
    }
    Some(Civil {
        year: broken.tm_year.checked_add(1900)?,
        month: u8::try_from(broken.tm_mon + 1).ok()?,
        day: u8::try_from(broken.tm_mday).ok()?,
        hour: u8::try_from(broken.tm_hour).ok()?,
        minute: u8::try_from(broken.tm_min).ok()?,
        second: u8::try_from(broken.tm_sec).ok()?,
        weekday: u8::try_from(broken.tm_wday).ok()?,
    })
}

/// Seconds since 1970 of a local calendar time (the weekday does not count). Days and seconds past
/// the end of their month or minute run on into the next, as in mktime(3).
pub fn from_local(civil: &Civil) -> Option<i64> {
    let mut broken = empty();
    broken.tm_year = civil.year.checked_sub(1900)?;
    broken.tm_mon = i32::from(civil.month) - 1;
    broken.tm_mday = i32::from(civil.day);
    broken.tm_hour = i32::from(civil.hour);
    broken.tm_min = i32::from(civil.minute);
    broken.tm_sec = i32::from(civil.second);
    // Whether summer time holds is for the zone to say.
    broken.tm_isdst = -1;
    // SAFETY: the pointer is to a live value that nothing else refers to, every field of which was
    // initialised; mktime(3) reads the zone as localtime_r above.
    let unix_s = unsafe { libc::mktime(&raw mut broken) };
    // -1 is also the error; a second before 1970 is of no use to anybody here.
    #[allow(
        clippy::useless_conversion,
        reason = "time_t has 32 bits on some systems"
    )]
    (unix_s >= 0).then(|| i64::from(unix_s))
}

/// Seconds since 1970 of a UTC calendar time; days and seconds run on as in [`from_local`].
pub fn from_utc(civil: &Civil) -> Option<i64> {
    let days = days_since_1970(
        i64::from(civil.year),
        i64::from(civil.month),
        i64::from(civil.day),
    );
    let day_s =
        i64::from(civil.hour) * 3600 + i64::from(civil.minute) * 60 + i64::from(civil.second);
    let unix_s = days * 86_400 + day_s;
    (unix_s >= 0).then_some(unix_s)
}

/// Days between 1970-01-01 and a day of the Gregorian calendar. Years begin in March here, so that
/// the leap day is their last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

fn empty() -> libc::tm {
    // SAFETY: struct tm holds integers and, on some systems, a pointer to the zone's name; all
    // zeroes is a value of it, with a null pointer that mktime and localtime_r only write.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn civil(year: i32, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Civil {
        Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
            weekday: 0,
        }
    }

    #[test]
    fn utc_follows_the_gregorian_calendar() {
        for (date, unix_s) in [
            (civil(1970, 1, 1, 0, 0, 0), 0),
            (civil(2000, 2, 29, 12, 0, 0), 951_825_600),
            (civil(2026, 11, 22, 2, 49, 0), 1_795_315_740),
            (civil(2038, 1, 19, 3, 14, 8), 1 << 31),
            (civil(2100, 3, 1, 0, 0, 0), 4_107_542_400),
        ] {
            assert_eq!(from_utc(&date), Some(unix_s), "{date:?}");
        }
        assert_eq!(
            from_utc(&civil(2025, 2, 31, 0, 0, 0)),
            from_utc(&civil(2025, 3, 3, 0, 0, 0))
        );
        assert_eq!(from_utc(&civil(1969, 12, 31, 0, 0, 0)), None);
    }

    #[test]
    fn local_time_goes_there_and_back() {
        for unix_s in [0, 951_825_600, 1_795_315_740] {
            let there = to_local(unix_s).unwrap();
            assert_eq!(from_local(&there), Some(unix_s));
        }
    }
}
