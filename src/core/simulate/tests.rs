use super::*;
use crate::types::Blake3Digest;

fn simulator(change: impl FnOnce(&mut SimulatorConfig)) -> Simulator {
    let mut config = SimulatorConfig { seed: 7, ..SimulatorConfig::default() };
    change(&mut config);
    Simulator::new(config).unwrap()
}

#[test]
fn a_part_is_the_same_however_often_and_in_whatever_order_it_is_made() {
    let simulator = simulator(|config| (config.width_px, config.height_px) = (160, 128));
    let first = simulator.part(3);
    let _ = simulator.part(9);
    assert_eq!(simulator.part(3), first);
    assert_ne!(simulator.part(4).frame, first.frame);
    assert_eq!(first.frame.len(), 160 * 128);
    assert_eq!(first.mask.len(), 160 * 128);
    assert_eq!(first.serial, "S7-000003");
}

#[test]
fn the_mask_holds_exactly_what_is_over_the_limit() {
    let simulator = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (192, 192, 0.7));
    let mut seen = [false; 5];
    for number in 0..60 {
        let part = simulator.part(number);
        assert_eq!(part.is_bad, part.mask.iter().any(|&label| label != 0), "part {number}");
        assert_eq!(part.is_bad, part.defects.iter().any(|defect| defect.is_over_limit), "part {number}");
        for label in &part.mask {
            seen[usize::from(*label)] = true;
        }
        for defect in &part.defects {
            let [left, top, right, bottom] = defect.bbox;
            assert!(left < right && top < bottom && right <= 192 && bottom <= 192, "part {number}: {defect:?}");
            assert!(defect.area_px <= (right - left) * (bottom - top));
        }
    }
    assert_eq!(seen, [true; 5], "all four kinds appear in sixty parts");
}

#[test]
fn a_defect_changes_only_its_own_neighbourhood() {
    let good = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (256, 256, 0.0));
    let bad = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (256, 256, 1.0));
    let (number, damaged) = (0..50)
        .map(|number| (number, bad.part(number)))
        .find(|(number, part)| part.defects.len() == 1 && good.part(*number).defects.is_empty())
        .unwrap();
    let clean = good.part(number);
    let [left, top, right, bottom] = damaged.defects[0].bbox.map(|side| side as usize);
    let reach = 40;
    for (index, (a, b)) in clean.frame.iter().zip(&damaged.frame).enumerate() {
        let (x, y) = (index % 256, index / 256);
        let is_near = x + reach >= left && x < right + reach && y + reach >= top && y < bottom + reach;
        assert!(is_near || a == b, "pixel {x},{y} differs far from {:?}", damaged.defects[0]);
    }
}

#[test]
fn about_as_many_parts_are_bad_as_asked_for() {
    let simulator = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (128, 128, 0.3));
    let bad = (0..300).filter(|number| simulator.part(*number).is_bad).count();
    assert!((60..=115).contains(&bad), "{bad} of 300");
}

#[test]
fn only_what_reaches_all_three_limits_counts() {
    let simulator = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (192, 192, 0.3));
    let unit_px = (192.0_f32 / 512.0).powi(2);
    let marks: Vec<Defect> = (0..300).flat_map(|number| simulator.part(number).defects).collect();
    for mark in &marks {
        let reaches_all = mark.area_px as f32 / unit_px >= LIMIT_AREA
            && mark.contrast >= LIMIT_CONTRAST
            && mark.contrast_ratio >= LIMIT_RATIO;
        assert_eq!(mark.is_over_limit, reaches_all, "{mark:?}");
        assert_eq!(mark.is_over_limit, mark.severity >= 1.0, "{mark:?}");
    }
    assert!(marks.iter().any(|mark| mark.area_px as f32 / unit_px < LIMIT_AREA), "a strong mark may be too small");
    assert!(marks.iter().any(|mark| mark.contrast < LIMIT_CONTRAST), "a large mark may be too faint");
}

#[test]
fn most_marks_are_clearly_above_or_below_the_limit() {
    let simulator = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (256, 256, 0.5));
    let parts: Vec<SimulatedPart> = (0..200).map(|number| simulator.part(number)).collect();
    let severities: Vec<f32> = parts.iter().flat_map(|part| &part.defects).map(|mark| mark.severity).collect();
    let close = severities.iter().filter(|severity| (COSMETIC_TO..DEFECT_FROM).contains(*severity)).count();
    assert!((1..severities.len() / 8).contains(&close), "{close} of {} marks are close", severities.len());
    let blemished = parts.iter().filter(|part| !part.is_bad && !part.defects.is_empty()).count();
    assert!((10..=40).contains(&blemished), "{blemished} good parts carry a cosmetic mark");
}

#[test]
fn a_design_is_shared_by_the_parts_of_a_line() {
    let simulator = simulator(|config| {
        (config.width_px, config.height_px, config.defect_rate) = (128, 128, 0.0);
        config.surfaces = vec![Surface::Turned];
        config.designs = Some(1);
    });
    let (a, b) = (simulator.part(1), simulator.part(2));
    assert_ne!(a.frame, b.frame);
    let mean = |part: &SimulatedPart| part.frame.iter().map(|&p| f64::from(p)).sum::<f64>() / part.frame.len() as f64;
    assert!((mean(&a) / mean(&b)).ln().abs() < 0.7, "{} and {}", mean(&a), mean(&b));
}

#[test]
fn impossible_configurations_are_refused() {
    let refused = |change: fn(&mut SimulatorConfig)| {
        let mut config = SimulatorConfig::default();
        change(&mut config);
        Simulator::new(config).unwrap_err()
    };
    assert!(matches!(refused(|c| c.width_px = 0), SimulatorError::Size { .. }));
    assert!(matches!(refused(|c| c.height_px = 100_000), SimulatorError::Size { .. }));
    assert!(matches!(refused(|c| c.defect_rate = f32::NAN), SimulatorError::DefectRate(_)));
    assert_eq!(refused(|c| c.surfaces.clear()), SimulatorError::NoSurface);
    assert_eq!(refused(|c| c.designs = Some(0)), SimulatorError::NoDesign);
}

/// The pixels are a promise: training data, accuracy pages and benches name only a seed. Whoever changes them makes
/// a new version, says so at the head of the module, and trains `machined-surface` again.
#[test]
fn released_pixels_of_version_2_do_not_change() {
    let simulator = simulator(|config| (config.width_px, config.height_px, config.defect_rate) = (200, 150, 0.5));
    let mut all = Vec::new();
    for number in 0..12 {
        let part = simulator.part(number);
        all.extend_from_slice(&part.frame);
        all.extend_from_slice(&part.mask);
    }
    assert_eq!(
        Blake3Digest::of(&all).to_string(),
        "blake3:dec3ad0a240d5232d0f08796eb14fb99119f2b7e2409d0fc353abf9c846e5169"
    );
}
