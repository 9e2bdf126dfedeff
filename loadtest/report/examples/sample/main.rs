//! Writes the reports of a made-up run, to look at: `cargo run -p tidings-report --example sample -- target/sample`.

mod run;

use std::path::PathBuf;
use tidings_report::{html, table};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/sample".to_owned()));
    std::fs::create_dir_all(&folder)?;
    let record = run::storm(120, 160.0);
    let before = run::storm(120, 140.0);
    let mut beside = run::storm(120, 160.0);
    beside.neighbours = vec![
        run::neighbour("nats-server 0", 120, 220.0),
        run::neighbour("redis 0", 100, 300.0),
    ];
    for (name, page) in [
        ("run", html::page(&record, None)),
        ("compared", html::page(&record, Some(&before))),
        ("neighbours", html::page(&beside, None)),
        ("hour", html::page(&run::storm(3_600, 160.0), None)),
    ] {
        let file = folder.join(format!("{name}.html"));
        std::fs::write(&file, page)?;
        println!("{}", file.display());
    }
    let style = table::Style {
        colours: std::io::IsTerminal::is_terminal(&std::io::stdout()),
        ..table::Style::default()
    };
    print!("{}", table::render(&record, Some(&before), style));
    Ok(())
}
