//! Tells of certificates that end: 90, 30 and 7 days before, then daily.

use std::collections::HashMap;

const DAY: i64 = 86_400;
/// Days before the end.
const STEPS: [i64; 3] = [7, 30, 90];

/// A certificate that ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// Which it is, and what to do.
    pub(crate) what: &'static str,
    /// Whole days that are left; below 0 when it has ended.
    pub(crate) days: i64,
    /// The end, seconds since 1970.
    pub(crate) until: i64,
}

/// What was told already.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    told: HashMap<&'static str, Told>,
}

#[derive(Debug, PartialEq, Eq)]
struct Told {
    until: i64,
    step: i64,
    day: i64,
}

impl Alarms {
    /// Whether something is to be told now of what ends then.
    pub(crate) fn look(&mut self, what: &'static str, until: i64, now: i64) -> Option<Alarm> {
        let left = until - now;
        let days = left.div_euclid(DAY);
        let step = STEPS.into_iter().find(|step| left <= step * DAY);
        let Some(step) = step else {
            self.told.remove(what);
            return None;
        };
        let told = Told {
            until,
            step,
            // In the last days each is told, and whether it has ended.
            day: if step == STEPS[0] { days } else { 0 },
        };
        if self.told.get(what) == Some(&told) {
            return None;
        }
        self.told.insert(what, told);
        Some(Alarm { what, days, until })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_end_is_told_90_30_and_7_days_before_and_then_daily() {
        let mut alarms = Alarms::default();
        let until = 1_000 * DAY;
        let mut told = Vec::new();
        for hour in 0..=(103 * 24) {
            let now = until - 100 * DAY + hour * 3_600;
            told.extend(alarms.look("leaf", until, now).map(|alarm| alarm.days));
        }
        assert_eq!(told, [90, 30, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3]);
        // Another end is another alarm; one that was put off is none.
        assert!(alarms.look("leaf", until + 20 * DAY, until).is_some());
        assert!(alarms.look("leaf", until + 20 * DAY, until).is_none());
        assert!(alarms.look("leaf", until + 200 * DAY, until).is_none());
        assert!(alarms.look("leaf", until, until - 8 * DAY).is_some());
        assert!(alarms.look("other", until, until - 8 * DAY).is_some());
    }
}
