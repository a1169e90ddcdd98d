//! Timestamps: RFC 3339, UTC, microseconds.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
pub(super) type Text = [u8; 27];

thread_local! {
    /// The last second that was spelled out: most lines share it.
    static LAST: Cell<(u64, Text)> = const { Cell::new((u64::MAX, [0; 27])) };
}

/// A point in time.
pub(super) fn text(time: SystemTime) -> Text {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut text) = LAST.get();
    if second != since.as_secs() {
        text = spell(since.as_secs());
        LAST.set((since.as_secs(), text));
    }
    put(&mut text[20..26], u64::from(since.subsec_micros()));
    text
}

fn spell(seconds: u64) -> Text {
    let (year, month, day) = civil(seconds / 86_400);
    let time = seconds % 86_400;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], time / 3_600);
    put(&mut text[14..16], time / 60 % 60);
    put(&mut text[17..19], time % 60);
    text
}

/// Writes the last digits of a number.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01. Counts in years that
/// begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_times() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (951_868_799, 999_999, "2000-02-29T23:59:59.999999Z"),
            (1_709_164_800, 5, "2024-02-29T00:00:00.000005Z"),
            (1_767_323_045, 120, "2026-01-02T03:04:05.000120Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(str::from_utf8(&super::text(time)), Ok(text));
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = civil(0);
        for days in 1..100_000 {
            let now = civil(days);
            let (year, month, day) = before;
            let next = now == (year, month, day + 1)
                || now == (year, month + 1, 1)
                || now == (year + 1, 1, 1) && (month, day) == (12, 31);
            assert!(next, "{before:?} {now:?}");
            before = now;
        }
    }
}
