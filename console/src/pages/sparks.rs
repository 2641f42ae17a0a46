//! Small plots that the server draws: a line of numbers as an SVG path. The number that it shows stands beside it as text.

/// Size of the drawing, which the page stretches.
const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 30.0;

/// Returns the plot of numbers, from the oldest to the newest. Nothing but zeros is a line at the bottom.
pub(crate) fn spark(parts: &[u64]) -> String {
    let most = parts.iter().copied().max().unwrap_or(0).max(1);
    let last = parts.len().saturating_sub(1).max(1);
    let mut path = String::new();
    for (at, part) in parts.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
        let (x, y) = (WIDTH * at as f64 / last as f64, HEIGHT - 2.0 - (HEIGHT - 5.0) * *part as f64 / most as f64);
        let command = if at == 0 { 'M' } else { 'L' };
        path.push_str(&format!("{command}{x:.1} {y:.1}"));
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::spark;

    #[test]
    fn the_largest_number_is_at_the_top_and_zero_at_the_bottom() {
        let plot = spark(&[0, 4, 2]);
        assert!(plot.contains("M0.0 28.0L60.0 3.0L120.0 15.5"), "{plot}");
        assert!(spark(&[0, 0]).contains("M0.0 28.0L120.0 28.0") && spark(&[]).contains("d=\"\""));
    }
}
