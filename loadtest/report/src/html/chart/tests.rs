//! Lines break where nothing was measured, and names stay names.

use super::*;

fn across(n: usize) -> Across {
    let place = |at: usize| at as f64 / (n - 1) as f64;
    Across {
        places: (0..n).map(place).collect(),
        names: (0..n).map(|at| format!("0:0{at}")).collect(),
        marks: vec![(0.0, "0:00".into())],
        phases: Vec::new(),
        events: Vec::new(),
        time: true,
    }
}

fn line(values: &[Option<f64>], bridges_gaps: bool) -> Line {
    Line {
        name: "p99".into(),
        colour: "s1",
        faint: false,
        values: values.to_vec(),
        bridges_gaps,
    }
}

const GAP: [Option<f64>; 5] = [Some(0.0), Some(4.0), None, Some(2.0), Some(4.0)];

#[test]
fn a_gap_breaks_a_line_unless_it_is_bridged() {
    let scale = Scale::linear(4.0, false);
    assert_eq!(
        path(&line(&GAP, false), &across(5), &scale),
        "M0 300 250 0M750 150 1000 0"
    );
    assert_eq!(
        path(&line(&GAP, true), &across(5), &scale),
        "M0 300 250 0 750 150 1000 0"
    );
    assert_eq!(
        area(&line(&GAP, false), &across(5), &scale),
        "M0 300 0 300 250 0 250 300zM750 300 750 150 1000 0 1000 300z"
    );
}

#[test]
fn a_single_point_is_a_dot() {
    let scale = Scale::linear(4.0, false);
    assert_eq!(
        path(&line(&[None, Some(4.0), None], false), &across(3), &scale),
        "M500 0h.01"
    );
}

#[test]
fn a_plot_says_what_it_shows_in_words_and_escapes_its_names() {
    let mut chart = Chart {
        title: "Latency <b>".into(),
        about: "\"low\" is good".into(),
        lines: vec![line(&GAP, false), line(&[None; 5], false)],
        axis: Axis::Linear,
        words: crate::words::count,
        wide: false,
    };
    chart.lines[0].name = "<i>n1</i>".into();
    let markup = chart.markup(&across(5), 7);
    assert!(!markup.contains("<b>") && !markup.contains("<i>"), "{markup}");
    assert!(
        markup.contains(
            "<title id=\"t7\">Latency &lt;b&gt;. &lt;i&gt;n1&lt;/i&gt;: 0 to 4; p99: nothing measured</title>"
        ),
        "{markup}"
    );
    assert!(chart.says_something());
    chart.lines[0].values = vec![Some(0.0); 5];
    assert!(!chart.says_something());
}
