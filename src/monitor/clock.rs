//! Wall-clock time: seconds since 1970, and local time as ctime(3) writes it.
#![allow(unsafe_code)] // Reason: the time zone database has no other interface than libc's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970; zero on a clock before that.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `Tue Jan  2 15:04:05 2024`, local time.
pub(super) fn local_time(time_s: i64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // Where time_t is narrower such a time is not printed.
    let Some(time) = time_s.try_into().ok() else { return String::new() };
    // SAFETY: `tm` holds integers and a pointer, for which zeroes are valid; both pointers are valid
    // for the call.
    let parts = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const time, &raw mut parts).is_null() {
            return String::new();
        }
        parts
    };
    let name = |names: &'static [&'static str], index: libc::c_int| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or("???")
    };
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        name(&DAYS, parts.tm_wday),
        name(&MONTHS, parts.tm_mon),
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        i64::from(parts.tm_year) + 1900,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_has_the_form_of_ctime() {
        let text = local_time(1_700_000_000);
        assert_eq!(text.len(), 24);
        assert!(text.starts_with("Tue Nov 14 ") || text.starts_with("Wed Nov 15 "), "{text}");
        assert!(text.ends_with(" 2023"));
    }
}
