//! Embedded stores under power cuts: each works as a process of its own on a file system that
//! loses power, and is judged by what it acknowledged with which promise. Prints one table for
//! each set of rules.

mod contender;
mod fjall;
mod redb;
mod sqlite;

use std::process::ExitCode;
use std::time::Instant;

use steadfast_testing::fuse::power_cut::{PowerCutConfig, cut_repeatedly};
use steadfast_testing::fuse::why_missing;
use steadfast_testing::sim::Rules;
use steadfast_testing::target::{Program, Tally, serve};

use crate::contender::{CONTENDERS, Contender};

const USAGE: &str = "\
usage: crash_peers [--cuts N] [--seed S] [--rules posix,sectors,ordered] [--only NAME,…] [--evidence DIR]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some([first, name]) = arguments.first_chunk()
        && first == "target"
    {
        let mut target = Contender::named(name).expect("we started it").target();
        let code = serve(target.as_mut(), &arguments[2..]);
        // Nothing is closed, as in a crash.
        std::process::exit(code);
    }
    let Some((config, rules, only)) = parse(arguments.into_iter()) else {
        eprintln!("{USAGE}\ncontenders: {}", CONTENDERS.map(|one| one.name).join(" "));
        return ExitCode::from(2);
    };
    if let Some(why) = why_missing() {
        eprintln!("SKIPPED crash_peers: {why}");
        return ExitCode::from(3);
    }
    let wants = |one: &&Contender| {
        only.is_empty() || only.iter().any(|name| one.name.contains(name.as_str()))
    };
    let contenders: Vec<_> = CONTENDERS.iter().filter(wants).collect();
    for rules in rules {
        println!("\n## Rules `{}`, {} cuts, seed {}\n", rules.name(), config.cuts, config.seed);
        println!("{}", HEAD);
        let mut findings = Vec::new();
        for contender in &contenders {
            let began = Instant::now();
            let place = format!("{}-{}", contender.name, rules.name());
            let evidence = config.evidence.as_ref().map(|dir| dir.join(&place));
            match measure(contender, &PowerCutConfig { rules, evidence, ..config.clone() }) {
                Ok(tally) => {
                    println!("{}", row(contender, &tally));
                    findings.push((contender.name, tally));
                }
                Err(error) => println!("| {} | could not be run: {error} |", contender.name),
            }
            eprintln!("{place}: {:.0?}", began.elapsed());
        }
        for (name, tally) in findings {
            for finding in &tally.findings {
                println!("\n- {name}, {finding}");
            }
        }
    }
    ExitCode::SUCCESS
}

fn parse(
    mut arguments: impl Iterator<Item = String>,
) -> Option<(PowerCutConfig, Vec<Rules>, Vec<String>)> {
    let mut config = PowerCutConfig { transactions_max: 40, ..PowerCutConfig::default() };
    let (mut rules, mut only) = (Rules::ALL.to_vec(), Vec::new());
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?;
        match argument.as_str() {
            "--cuts" => config.cuts = value.parse().ok()?,
            "--seed" => config.seed = value.parse().ok()?,
            "--rules" => rules = value.split(',').map(Rules::from_name).collect::<Option<_>>()?,
            "--evidence" => config.evidence = Some(value.into()),
            "--only" => only = value.split(',').map(str::to_owned).collect(),
            _ => return None,
        }
    }
    Some((config, rules, only))
}

fn measure(contender: &Contender, config: &PowerCutConfig) -> std::io::Result<Tally> {
    let program = Program::new(std::env::current_exe()?, &["target", contender.name]);
    cut_repeatedly(&program, config)
}

const HEAD: &str = "\
| store | at its return a commit survives | cuts | images | good | promised lost | torn | hole | \
garbage | resurrected | refused | refused, unborn | died or hung | unusable | not promised: lost in, at most |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

fn row(contender: &Contender, tally: &Tally) -> String {
    let counts = [
        tally.crashes,
        tally.images,
        tally.count("good"),
        tally.count("lost"),
        tally.count("torn"),
        tally.count("hole"),
        tally.count("garbage"),
        tally.count("resurrected"),
        tally.count("refused"),
        tally.count("refused unborn"),
        tally.count("died") + tally.count("hung"),
        tally.count("unusable"),
    ];
    let counts: String = counts.iter().map(|count| format!(" {count} |")).collect();
    let lost = match tally.unpromised_lost {
        0 => "0".to_owned(),
        images => format!("{images}, {}", tally.unpromised_lost_most),
    };
    format!("| {} | {} |{counts} {lost} |", contender.name, contender.promise)
}
