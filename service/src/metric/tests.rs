use super::*;

const COLOUR: LabelSpec = LabelSpec { name: "colour", values: LabelValues::Words(|| vec!["red", "blue"]) };
const SIZE: LabelSpec = LabelSpec { name: "size", values: LabelValues::Configured("sizes") };

crate::metrics! {
    const CATALOGUE;
    struct Painted {
        balls: IntCounterVec = MetricSpec::counter("balls_total", "Balls painted.").by(&[COLOUR, SIZE]),
        drying_seconds: Histogram = MetricSpec::histogram("drying_seconds", "Time to dry.", &[1.0, 2.0]),
    }
}

#[test]
fn metrics_are_registered_as_described_and_exist_at_zero() {
    let registry = Registry::new();
    let painted = Painted::register(&registry).expect("registered");
    create_series(&painted.balls, &[&["red", "blue"], &["small", "large"]]);
    painted.drying_seconds.observe(1.5);
    let families = registry.gather();
    let names: Vec<&str> = families.iter().map(prometheus::proto::MetricFamily::name).collect();
    let described: Vec<&str> = CATALOGUE.iter().map(|spec| spec.name).collect();
    assert_eq!(names, described);
    assert_eq!(families[0].get_metric().len(), 4);
    assert!(families[0].get_metric().iter().all(|series| series.get_counter().get_value() == 0.0));
    assert!(Painted::register(&registry).is_err(), "a name is registered once");
}

#[test]
fn a_type_of_another_kind_is_refused() {
    let spec = MetricSpec::gauge("depth", "Depth.");
    assert!(spec.register::<IntCounter>(&Registry::new()).is_err());
    assert!(spec.register::<Histogram>(&Registry::new()).is_err());
    assert!(spec.register::<IntGauge>(&Registry::new()).is_ok());
}

#[test]
fn the_unit_is_that_of_the_name() {
    for (name, unit) in [
        ("wait_seconds", "seconds"),
        ("cpu_seconds_total", "seconds"),
        ("success_timestamp_seconds", "seconds since 1970"),
        ("read_bytes_total", "bytes"),
        ("runs", "number"),
    ] {
        assert_eq!(MetricSpec::gauge(name, "").unit(), unit, "{name}");
    }
}

#[test]
fn the_page_names_every_metric_and_the_values_of_its_labels() {
    let page = metrics_page(&[("Paint", CATALOGUE)]);
    assert!(page.contains("| `balls_total` | counter | number | `colour`, `size` | sum | Balls painted. |"), "{page}");
    assert!(page.contains("| `drying_seconds` | histogram | seconds |  | sum | Time to dry. |"), "{page}");
    assert!(page.contains("| `colour` | all | `red`, `blue` |\n| `size` | all | sizes |"), "{page}");
}
