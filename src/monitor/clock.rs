//! Wall-clock time: now, and as ctime(3) writes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::local_time::{MONTHS, WEEKDAYS, to_local};

/// Since 1970; zero on a clock before that.
pub(super) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// `Tue Jan  2 15:04:05 2024`, local time.
pub(super) fn local_time(time_s: i64) -> String {
    let Some(time) = to_local(time_s) else {
        return String::new();
    };
    let name =
        |names: &'static [&'static str], index: usize| names.get(index).copied().unwrap_or("???");
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        name(&WEEKDAYS, usize::from(time.weekday)),
        name(&MONTHS, usize::from(time.month).wrapping_sub(1)),
        time.day,
        time.hour,
        time.minute,
        time.second,
        time.year,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_has_the_form_of_ctime() {
        let text = local_time(1_700_000_000);
        assert_eq!(text.len(), 24);
        assert!(
            text.starts_with("Tue Nov 14 ") || text.starts_with("Wed Nov 15 "),
            "{text}"
        );
        assert!(text.ends_with(" 2023"));
    }
}
