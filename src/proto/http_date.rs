//! The time as HTTP writes it (RFC 9110 5.6.7). It knows no clock: the time is an argument.

/// The last second of the year 9999, behind which the format has no room.
const SECONDS_MAX: u64 = 253_402_300_799;

const SECONDS_PER_DAY: u64 = 86_400;

/// A point in time in the form that is to be sent, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// Of a time in seconds since the beginning of 1970, as Unix counts them: without leap seconds. Times beyond the year
    /// 9999 are its last second.
    pub fn from_unix(seconds: u64) -> HttpDate {
        let seconds = seconds.min(SECONDS_MAX);
        let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = civil(days);
        // 1970 began on a Thursday.
        let weekday = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"][(days % 7) as usize];
        let month = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"]
            [month as usize];
        let mut text = *b"Www, 00 Mmm 0000 00:00:00 GMT";
        text[..3].copy_from_slice(weekday);
        text[8..11].copy_from_slice(month);
        let numbers = [
            (5, day),
            (12, year / 100),
            (14, year % 100),
            (17, second / 3600),
            (20, second / 60 % 60),
            (23, second % 60),
        ];
        for (at, number) in numbers {
            text[at] += (number / 10) as u8;
            text[at + 1] += (number % 10) as u8;
        }
        HttpDate(text)
    }

    /// Its 29 bytes, all ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Year, month (0 is January) and day of the month of a day since the beginning of 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted in years that begin in March, so that the leap day is the last of one; 719,468 days before 1970 began the year
    // 0. 400 years have 146,097 days; 153 days are five months, whichever.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    (year, (month + 2) % 12, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            // RFC 9110 5.6.7's.
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_456_000, "Sun, 28 Feb 2100 00:00:00 GMT"),
            (SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let date = HttpDate::from_unix(seconds);
            assert_eq!(std::str::from_utf8(date.as_bytes()), Ok(text), "{seconds}");
        }
    }

    /// Each day follows the one before it.
    #[test]
    fn days_follow_each_other() {
        let mut before = civil(0);
        for day in 1..150_000 {
            let (year, month, of_month) = civil(day);
            let follows = match before {
                (y, m, d) if of_month > 1 => (y, m, d + 1) == (year, month, of_month) && of_month <= 31,
                (y, 11, 31) => (y + 1, 0) == (year, month),
                (y, m, d) => d >= 28 && (y, m + 1) == (year, month),
            };
            assert!(follows, "{before:?} and then {:?}", (year, month, of_month));
            before = (year, month, of_month);
        }
    }
}
