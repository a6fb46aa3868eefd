//! Lists of faults, which people edit.

use vitte_net_sim::Scenario;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(scenario) = Scenario::from_json(text) {
        let again = Scenario::from_json(&scenario.to_json()).expect("what was written is read");
        assert_eq!(again, scenario);
        scenario.faults.iter().for_each(|timed| drop(timed.fault.nodes()));
    }
}
