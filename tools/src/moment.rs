//! Moments of the wall clock, as people write them and as records hold them: milliseconds since the Unix epoch, UTC.

use toml::value::{Datetime, Offset};

const MS_A_SECOND: u64 = 1000;
const SECONDS_A_DAY: i64 = 86_400;
/// A bare number from here on is milliseconds, below seconds: 1973 in the one, the year 5138 in the other.
const MS_MIN: u64 = 100_000_000_000;
/// A bare number below this is too small for a moment in either.
const SECONDS_MIN: u64 = 100_000_000;
/// The end of the year 9999, the last that RFC 3339 can write.
const MS_END: u64 = 253_402_300_800_000;

/// Reads RFC 3339 (2026-11-22T18:00:00Z) or a number of seconds or milliseconds since the epoch.
pub fn parse(text: &str) -> Result<u64, String> {
    let shape = "a time looks like 2026-11-22T18:00:00Z, 2026-11-22T19:00:00.250+01:00, 1795370400 (seconds since 1970) or \
                 1795370400250 (milliseconds)";
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u64>().map_err(|_| shape)? {
            0..SECONDS_MIN => Err(format!("{text} may be seconds or milliseconds; {shape}")),
            seconds @ SECONDS_MIN..MS_MIN => Ok(seconds * MS_A_SECOND),
            ms @ MS_MIN..MS_END => Ok(ms),
            _ => Err(format!("{text} is beyond the year 9999; {shape}")),
        };
    }
    // The configuration's dates have this very form, so its reader knows it.
    let moment: Datetime = text.parse().map_err(|_| shape)?;
    let (Some(date), Some(time)) = (moment.date, moment.time) else { return Err(shape.to_owned()) };
    let minutes = match moment.offset {
        Some(Offset::Z) => 0,
        Some(Offset::Custom { minutes }) => i64::from(minutes),
        None => return Err(format!("{text} does not say in which zone: put Z (UTC) or an offset behind it; {shape}")),
    };
    let days = days_from_civil(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let of_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let seconds = days * SECONDS_A_DAY + of_day - minutes * 60;
    let ms = u64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    let seconds = u64::try_from(seconds).map_err(|_| format!("{text} is before 1970; {shape}"))?;
    Ok(seconds * MS_A_SECOND + ms)
}

/// As RFC 3339 with milliseconds, always of the same width; what lies beyond the year 9999 as a number.
pub fn show(ms: u64) -> String {
    if ms >= MS_END {
        return format!("{ms} ms");
    }
    let seconds = (ms / MS_A_SECOND) as i64;
    let (year, month, day) = civil_from_days(seconds / SECONDS_A_DAY);
    let of_day = seconds % SECONDS_A_DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % MS_A_SECOND)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day; the inverse.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days - era * 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{civil_from_days, days_from_civil, parse, show};

    #[test]
    fn a_moment_is_read_in_every_form_and_shown_in_one() {
        let shown = "2026-11-22T18:00:00.250Z";
        for text in [
            shown,
            "2026-11-22 18:00:00.25Z",
            "2026-11-22T19:00:00.250+01:00",
            "2026-11-22T08:30:00.250-09:30",
            "1795370400250",
        ] {
            assert_eq!(parse(text).map(show), Ok(shown.to_owned()), "{text}");
        }
        assert_eq!(parse("1795370400"), Ok(1_795_370_400_000));
        assert_eq!(parse("2026-11-22T18:00:00Z"), Ok(1_795_370_400_000));
        assert_eq!(parse("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(parse("2024-02-29T23:59:59Z").map(show).unwrap(), "2024-02-29T23:59:59.000Z");
        assert_eq!(show(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn what_could_mean_two_moments_is_refused_with_examples() {
        for (text, part) in [
            ("5", "seconds or milliseconds"),
            ("2026-11-22T18:00:00", "which zone"),
            ("2026-11-22", "looks like"),
            ("18:00:00", "looks like"),
            ("2026-02-30T00:00:00Z", "looks like"),
            ("1969-12-31T23:59:59Z", "before 1970"),
            ("999999999999999", "year 9999"),
            ("99999999999999999999999", "looks like"),
            ("yesterday", "looks like"),
            ("-5", "looks like"),
            ("", "looks like"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && error.contains("2026-11-22T18:00:00Z"), "{text:?}: {error}");
        }
    }

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for days in (-800_000..3_000_000).step_by(13) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days, "{year}-{month}-{day}");
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
    }
}
