//! The demo keeps its promise, with a few kills.

use crate::support::{Home, steadfast, steadfast_on};

#[test]
fn the_demo_kills_its_writer_and_loses_nothing() {
    let home = Home::new();
    let db = home.db();
    let args = ["demo", "--dir", db.to_str().unwrap(), "--seed", "3", "--kills", "4", "--json"];
    let report = steadfast(&args).ok().json();
    assert_eq!(report["lost"], 0);
    assert_eq!(report["kills"], 4);
    assert_eq!(report["seed"], 3);
    assert!(report["checkpoints"].as_u64() > Some(2), "{report}");
    assert_eq!(report["kept"], report["transactions"]);
    assert!(report["acknowledged"].as_u64() > Some(1000), "{report}");
    steadfast_on("verify", &db, &[], "").ok();
    let again = steadfast(&args).status(1);
    assert!(again.stderr.contains("exist") || again.stderr.contains("empty"), "{}", again.stderr);
}
