//! Lists for people, and times as they read them. There is no file with the local time zone behind the
//! closed door, so times are UTC.

#![forbid(unsafe_code)]

/// Rows under a heading, each column as wide as its widest cell; the last one ends where it ends.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        let mut written = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            written.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            written.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    };
    line(heading);
    for row in rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        line(&cells);
    }
    text
}

/// `2026-11-22T02:49:00Z`
pub(super) fn utc(unix_s: i64) -> String {
    const DAY_S: i64 = 24 * 60 * 60;
    let (days, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
    // Howard Hinnant's civil_from_days: years that begin in March, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// `1.5 MiB`
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count;
    let mut tenths = 0;
    let mut unit = "B";
    for next in UNITS {
        if scaled < 1024 {
            break;
        }
        tenths = scaled % 1024 * 10 / 1024;
        scaled /= 1024;
        unit = next;
    }
    if unit == "B" {
        format!("{scaled} B")
    } else {
        format!("{scaled}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["1".to_owned(), "long name".to_owned(), "x".to_owned()]];
        assert_eq!(
            table(&["ID", "USER", "WHAT"], &rows),
            "ID  USER       WHAT\n1   long name  x\n"
        );
    }

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_795_315_740), "2026-11-22T02:49:00Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn counts_of_bytes_are_rounded_down() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
