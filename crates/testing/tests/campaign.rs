//! A campaign over an engine with planted bugs: it finds them, makes the program that shows them
//! short, and its token repeats the failure.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_testing::campaign::{Campaign, CampaignReport};
use steadfast_testing::sabotage::{Sabotage, sabotage_this_thread};

fn look(campaign: &Campaign, sabotage: Option<Sabotage>) -> CampaignReport {
    let before = sabotage_this_thread(sabotage);
    let report = campaign.run(|_| {});
    sabotage_this_thread(before);
    report
}

#[test]
fn a_planted_bug_comes_with_a_short_program_and_a_token() {
    for (sabotage, actions_max) in [
        (Sabotage::StrictWriteNotDurable, 2),
        (Sabotage::SkipManifestDirectorySync, 3),
        (Sabotage::IgnoreGroupChecksum, 3),
        (Sabotage::DropLastWrite, 2),
    ] {
        let campaign = Campaign::new(11).only(&["random programs"]).unwrap();
        let campaign = campaign.time(Duration::from_secs(20));
        let report = look(&campaign, Some(sabotage));
        let failure = report.failures().next().unwrap_or_else(|| panic!("{sabotage}: {report}"));
        let program = failure.why.split_once("the program:\n  open").unwrap().1.trim();
        println!("{sabotage}: {}\n", failure.why);
        assert!(program.lines().count() <= actions_max, "{sabotage}: {}", failure.why);

        let before = sabotage_this_thread(Some(sabotage));
        let again = campaign.replay(&failure.token).unwrap();
        sabotage_this_thread(before);
        let again: Vec<_> = again.failures().collect();
        assert_eq!(again, [failure], "{sabotage}: the token repeats it");
        let healthy = campaign.replay(&failure.token).unwrap();
        assert!(healthy.is_good(), "{healthy}");
        assert!(healthy.images() > 0);
    }
}

#[test]
fn a_cell_that_failed_is_not_tried_again_and_the_others_go_on() {
    let campaign = Campaign::new(2).only(&["random programs", "isolation"]).unwrap();
    let campaign = campaign.time(Duration::from_secs(8));
    let report = look(&campaign, Some(Sabotage::LostUpdate));
    let failed: Vec<_> = report.failures().map(|failure| failure.token.to_string()).collect();
    assert_eq!(failed[0], "isolation.any.2", "{report}");
    for cell in &report.cells {
        assert!(cell.parts >= 1, "{report}");
        assert!(cell.technique != "isolation" || cell.parts == 1, "not again: {report}");
    }
    assert!(report.rounds >= 1, "{report}");
}
