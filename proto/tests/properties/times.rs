//! Times: their text, their unit, and arithmetic with them.

use std::time::Duration;

use proptest::prelude::*;
use usher_proto::Timestamp;

use crate::cases;

/// 0001-01-01 to 9999-12-30 in ms.
const EXPRESSIBLE: std::ops::Range<i64> = -62_135_596_800_000..253_402_128_000_000;

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_time_reads_back_and_its_texts_are_in_order(one in EXPRESSIBLE, other in EXPRESSIBLE) {
        let time = Timestamp::from_millis(one);
        prop_assert_eq!(time.to_string().parse(), Ok(time));
        let other = Timestamp::from_millis(other);
        prop_assert_eq!(time.to_string().cmp(&other.to_string()), time.cmp(&other));
        let json = serde_json::to_string(&time).expect("a text");
        prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("a time"), time);
    }

    #[test]
    fn what_is_later_by_a_time_is_earlier_by_it_again(millis in EXPRESSIBLE, by in 0_u64..1_000_000_000_000) {
        let time = Timestamp::from_millis(millis);
        let by = Duration::from_millis(by);
        prop_assert_eq!(time.plus(by).minus(by), time);
        prop_assert_eq!(time.plus(by).since(time), by);
        prop_assert_eq!(time.minus(by).since(time), Duration::ZERO);
        prop_assert!(time.seconds() * 1000 <= millis && millis < (time.seconds() + 1) * 1000);
    }

    #[test]
    fn a_number_of_either_unit_is_the_same_time(seconds in 100_000_000_i64..100_000_000_000) {
        let expected = Some(Timestamp::from_seconds(seconds));
        prop_assert_eq!(Timestamp::from_seconds_or_millis(seconds), expected);
        prop_assert_eq!(Timestamp::from_seconds_or_millis(seconds * 1000), expected);
    }

    #[test]
    fn a_number_that_is_accepted_has_a_text_that_reads_back(value: i64) {
        if let Some(time) = Timestamp::from_seconds_or_millis(value) {
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
