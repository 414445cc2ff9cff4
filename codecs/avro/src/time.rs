//! The JSON form of dates and times: ISO 8601, or the number if there is no such text, for years before -9999 or after 9999.

use jiff::civil::{Date, DateTime, Time as TimeOfDay};
use jiff::{SignedDuration, Timestamp};

use schema_framing::shorten;

use crate::json::push;
use crate::plan::{Time, Unit};

/// Days from 1970 to the ends of what has a text.
const MIN_DAY: i64 = -4_371_587;
const MAX_DAY: i64 = 2_932_896;

const NANOS_PER_DAY: i128 = 86_400 * 1_000_000_000;

/// Appends the text of a date or a time.
pub(crate) fn write_time(time: Time, count: i64, out: &mut String) {
    let text = match time {
        Time::Date => date(count).map(|date| date.to_string()),
        Time::OfDay(unit) => {
            let nanos = i128::from(count) * unit.nanos();
            time_of_day(nanos).map(|time| time.to_string())
        }
        Time::Point(unit) => datetime(count, unit).map(|datetime| format!("{datetime}Z")),
        Time::Local(unit) => datetime(count, unit).map(|datetime| datetime.to_string()),
    };
    match text {
        Some(text) => push(out, format_args!("\"{text}\"")),
        None => push(out, format_args!("{count}")),
    }
}

/// Reads what [`write_time`] writes.
///
/// # Errors
///
/// If it is no such text, or is more exact than the type.
pub(crate) fn read_time(time: Time, text: &str) -> Result<i64, String> {
    let expected = |what: &str| format!("expected {what}, found {:?}", shorten(text));
    let (nanos, unit) = match time {
        Time::Date => {
            let date: Date = text.parse().map_err(|_| expected("a date such as 2026-11-30"))?;
            return Ok(days(date));
        }
        Time::OfDay(unit) => {
            let time: TimeOfDay = text.parse().map_err(|_| expected("a time such as 12:34:56.789"))?;
            let nanos = time.duration_since(TimeOfDay::midnight()).as_nanos();
            (nanos, unit)
        }
        Time::Point(unit) => {
            let expected = || expected("a time such as 2026-11-30T12:34:56.789Z");
            let nanos = match text.strip_suffix(['Z', 'z']) {
                Some(text) => nanos_since_1970(text.parse().map_err(|_| expected())?),
                // With another offset.
                None => text.parse::<Timestamp>().map_err(|_| expected())?.as_nanosecond(),
            };
            (nanos, unit)
        }
        Time::Local(unit) => {
            let datetime = text.parse().map_err(|_| expected("a time such as 2026-11-30T12:34:56.789"))?;
            (nanos_since_1970(datetime), unit)
        }
    };
    if nanos % unit.nanos() != 0 {
        return Err(format!("{:?} has more digits than the type can hold", shorten(text)));
    }
    i64::try_from(nanos / unit.nanos()).map_err(|_| format!("{:?} is out of range", shorten(text)))
}

fn date(days: i64) -> Option<Date> {
    if !(MIN_DAY..=MAX_DAY).contains(&days) {
        return None;
    }
    Date::constant(1970, 1, 1).checked_add(SignedDuration::from_hours(24 * days)).ok()
}

fn days(date: Date) -> i64 {
    date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24
}

fn time_of_day(nanos: i128) -> Option<TimeOfDay> {
    if !(0..NANOS_PER_DAY).contains(&nanos) {
        return None;
    }
    let nanos = i64::try_from(nanos).ok()?;
    TimeOfDay::midnight().checked_add(SignedDuration::from_nanos(nanos)).ok()
}

fn datetime(count: i64, unit: Unit) -> Option<DateTime> {
    let nanos = i128::from(count) * unit.nanos();
    let date = date(i64::try_from(nanos.div_euclid(NANOS_PER_DAY)).ok()?)?;
    Some(DateTime::from_parts(date, time_of_day(nanos.rem_euclid(NANOS_PER_DAY))?))
}

fn nanos_since_1970(datetime: DateTime) -> i128 {
    let nanos = datetime.time().duration_since(TimeOfDay::midnight()).as_nanos();
    i128::from(days(datetime.date())) * NANOS_PER_DAY + nanos
}

/// Appends months, days and milliseconds.
pub(crate) fn write_duration(bytes: [u8; 12], out: &mut String) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    let number = u32::from_le_bytes;
    let (months, days, millis) = (number([a, b, c, d]), number([e, f, g, h]), number([i, j, k, l]));
    push(out, format_args!("{{\"months\":{months},\"days\":{days},\"millis\":{millis}}}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts_that_read_as_the_same_times() {
        let cases = [
            (Time::Date, 20_787, "\"2026-11-30\""),
            (Time::Date, -1, "\"1969-12-31\""),
            (Time::Date, MIN_DAY, "\"-009999-01-01\""),
            (Time::Date, MAX_DAY, "\"9999-12-31\""),
            (Time::Date, MAX_DAY + 1, "2932897"),
            (Time::Date, i64::from(i32::MIN), "-2147483648"),
            (Time::OfDay(Unit::Millis), 45_296_789, "\"12:34:56.789\""),
            (Time::OfDay(Unit::Micros), 0, "\"00:00:00\""),
            (Time::OfDay(Unit::Micros), -1, "-1"),
            (Time::Point(Unit::Millis), 1_796_042_096_789, "\"2026-11-30T12:34:56.789Z\""),
            (Time::Point(Unit::Nanos), -1, "\"1969-12-31T23:59:59.999999999Z\""),
            (Time::Point(Unit::Micros), i64::MAX, "9223372036854775807"),
            (Time::Point(Unit::Millis), 253_402_300_799_999, "\"9999-12-31T23:59:59.999Z\""),
            (Time::Point(Unit::Millis), 253_402_300_800_000, "253402300800000"),
            (Time::Local(Unit::Millis), 1_796_042_096_789, "\"2026-11-30T12:34:56.789\""),
        ];
        for (time, count, expected) in cases {
            let mut out = String::new();
            write_time(time, count, &mut out);
            assert_eq!(out, expected, "{time:?} {count}");
            if let Some(text) = out.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                assert_eq!(read_time(time, text), Ok(count), "{time:?} {text}");
            }
        }
        assert!(read_time(Time::Point(Unit::Millis), "2026-11-30T12:34:56.7891Z").is_err());
        assert!(read_time(Time::Date, "2026-13-01").is_err());
    }
}
