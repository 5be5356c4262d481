//! Straight lines through a few points, and how certain they are, by Student's distribution (N. R. Draper and H. Smith, *Applied
//! Regression Analysis*, 3rd ed. (1998), section 1.4).

use statrs::distribution::{ContinuousCDF, StudentsT};

/// `y = at_rest + slope · x`, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// What one more of x adds.
    pub slope: f64,
    /// Its 95% confidence interval.
    pub slope_interval: [f64; 2],
    /// What there is without any x.
    pub at_rest: f64,
}

/// Fits the line; none with fewer than three points or without different x.
pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
    let at_rest = y - slope * x;
    let left: f64 = points.iter().map(|p| (p.1 - at_rest - slope * p.0).powi(2)).sum();
    let error = (left / (n - 2.0) / spread).sqrt() * student(points.len() - 2);
    Some(Line { slope, slope_interval: [slope - error, slope + error], at_rest })
}

/// So many standard errors to either side hold 95%, with so many degrees of freedom.
pub fn student(freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom.max(1) as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_with_its_doubt() {
        let exact: Vec<(f64, f64)> = (1..6).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        let found = fit(&exact).unwrap();
        assert!((found.slope - 2.0).abs() < 1e-9 && (found.at_rest - 3.0).abs() < 1e-9, "{found:?}");
        // By hand: residuals of ±0.3 around slope 2.
        let noisy: Vec<(f64, f64)> =
            exact.iter().zip([0.3, -0.3, 0.0, -0.3, 0.3]).map(|(p, e)| (p.0, p.1 + e)).collect();
        let found = fit(&noisy).unwrap();
        let [low, high] = found.slope_interval;
        assert!(low < 2.0 && high > 2.0 && (high - low - 2.0 * 3.182 * (0.36f64 / 3.0 / 10.0).sqrt()).abs() < 0.01);
        assert_eq!(fit(&exact[..2]), None);
        assert_eq!(fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert!((student(3) - 3.182).abs() < 0.001);
    }

    #[test]
    fn the_slope_of_a_known_line_and_its_interval() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        let Line { slope, slope_interval: [low, high], .. } = fit(&line).unwrap();
        assert!((slope - 2.0).abs() < 1e-12 && (high - low).abs() < 1e-6);
        // By hand: x = 1..5, y = 1, 3, 2, 5, 4 has the slope 0.8, residuals of 3.6, and t(3) = 3.182.
        let points = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 5.0), (5.0, 4.0)];
        let Line { slope, slope_interval: [low, high], .. } = fit(&points).unwrap();
        assert!((slope - 0.8).abs() < 1e-12);
        assert!((high - low - 2.0 * 3.182_446 * (3.6_f64 / 3.0 / 10.0).sqrt()).abs() < 1e-4, "{low} to {high}");
        assert_eq!(fit(&points[..2]), None);
    }
}
