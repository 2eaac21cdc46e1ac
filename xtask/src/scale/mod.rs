//! Makes the tables and the plot of `docs/scale.md`: what API servers send to a network agent on each node, by where these
//! have their peers from, for clusters that nobody has at hand.

mod hour;
mod world;

use std::fmt::Write as _;
use std::fs;

use twill_chart::{Limit, Plot, Series, grouped, markdown, replaced};

use crate::run::{Outcome, root};
use hour::Hour;
use world::{Source, World};

const PAGE: &str = "docs/scale.md";
const PLOT: &str = "docs/plots/scale-api.svg";
const BEGIN: &str = "<!-- Made by `cargo xtask scale`: change xtask/src/scale instead. -->";
const END: &str = "<!-- End of what is made. -->";
/// Clusters of the plot.
const SIZES: [u64; 7] = [1_000, 2_000, 5_000, 10_000, 15_000, 50_000, 100_000];
/// Those of them that have a line in the tables, and from where on all sources are compared.
const SHOWN: [u64; 5] = [1_000, 5_000, 15_000, 50_000, 100_000];
const COMPARED: u64 = 15_000;
/// What API servers shall have left for others when nothing special happens.
const COMFORT: f64 = 0.25;

/// Writes the page's part and the plot, and shows the tables.
pub(crate) fn run() -> Outcome {
    let made = made();
    print!("{}", made.tables);
    let wrong = |file: &'static str| move |error| format!("cannot write {file}: {error}");
    fs::write(root().join(PAGE), within(&page()?, &made.tables)?).map_err(wrong(PAGE))?;
    fs::create_dir_all(root().join("docs/plots")).map_err(wrong(PLOT))?;
    fs::write(root().join(PLOT), made.plot).map_err(wrong(PLOT))
}

/// Says what to do if the page or the plot is not what is made.
pub(crate) fn complaint() -> Outcome<Option<String>> {
    let (made, page) = (made(), page()?);
    let plot = fs::read_to_string(root().join(PLOT)).unwrap_or_default();
    let same = within(&page, &made.tables)? == page && plot == made.plot;
    Ok((!same).then(|| format!("{PAGE} or {PLOT} is not what xtask/src/scale makes: `cargo xtask scale` writes them")))
}

fn page() -> Outcome<String> {
    fs::read_to_string(root().join(PAGE)).map_err(|error| format!("cannot read {PAGE}: {error}"))
}

/// The page with these tables in their place.
fn within(page: &str, tables: &str) -> Outcome<String> {
    replaced(page, (BEGIN, END), tables)
        .ok_or_else(|| format!("{PAGE} has no place for the tables: a line {BEGIN:?}, and below it {END:?}"))
}

struct Made {
    tables: String,
    plot: String,
}

fn made() -> Made {
    let hour = |world: World| {
        let hours = Source::ALL.into_iter().map(|source| (source, Hour::of(&world, source))).collect();
        (world, hours)
    };
    let hours: Vec<(World, Vec<(Source, Hour)>)> = SIZES.into_iter().map(World::of).map(hour).collect();
    let mut tables = String::new();
    nodes(&mut tables, &hours);
    sources(&mut tables, &hours);
    let _ = writeln!(
        tables,
        "\nAPI servers need a quarter of what they can send, with nothing special going on, in clusters of:\n"
    );
    let line = |source: Source| {
        let beyond = || format!("more than {}", grouped(SIZES.into_iter().max().unwrap_or_default()));
        let most = largest(&loads(&hours, source)).map_or_else(beyond, |nodes| format!("about {}", grouped(nodes)));
        [source.name().to_owned(), most]
    };
    let sources = Source::ALL.into_iter().filter(|source| *source != Source::Kept);
    tables += &markdown(&heads(["Peers from", "Nodes"]), sources.map(line));
    Made { tables, plot: plot(&hours) }
}

/// Numbers of nodes, with what a source asks of API servers then.
fn series(hours: &Hours, source: Source, value: impl Fn(&Hour) -> f64) -> Vec<(f64, f64)> {
    let of = |(world, hours): &(World, Vec<(Source, Hour)>)| {
        let (_, hour) = hours.iter().find(|(of, _)| *of == source)?;
        Some((world.nodes as f64, value(hour)))
    };
    hours.iter().filter_map(of).collect()
}

fn loads(hours: &Hours, source: Source) -> Vec<(f64, f64)> {
    series(hours, source, |hour| hour.load)
}

type Hours = [(World, Vec<(Source, Hour)>)];

fn heads<const N: usize>(heads: [&str; N]) -> Vec<String> {
    heads.map(str::to_owned).into()
}

/// What it is now, from the smallest to the largest.
fn nodes(text: &mut String, hours: &Hours) {
    let heads = heads([
        "Nodes",
        "Events/s",
        "All API servers send",
        "Their load",
        "An agent receives",
        "An agent's CPU",
        "Late (99 of 100)",
        "A list",
        "Load of a rollout",
    ]);
    let line = |(world, sources): &(World, Vec<(Source, Hour)>)| {
        let (source, hour) = sources.first()?;
        Some([
            grouped(world.nodes),
            number(hour.events),
            format!("{}/s", bytes(hour.egress)),
            percent(hour.load),
            format!("{}/s", bytes(hour.agent_bytes)),
            percent(hour.agent_cpu),
            late(hour.late),
            bytes(world.list(*source)),
            percent(hour.load_of_rollout),
        ])
    };
    let shown = hours.iter().filter(|(world, _)| SHOWN.contains(&world.nodes));
    let _ = writeln!(text, "Every agent watches Nodes:\n\n{}", markdown(&heads, shown.filter_map(line)).trim_end());
}

fn sources(text: &mut String, hours: &Hours) {
    let heads = heads([
        "Peers from",
        "Events/s",
        "All API servers send",
        "Their load",
        "An agent receives",
        "An agent's CPU",
        "Late (99 of 100)",
        "… in a rollout",
        "Load of a rollout",
        "A list",
        "Memory of each API server",
    ]);
    for (world, sources) in hours.iter().filter(|(world, _)| world.nodes >= COMPARED) {
        let line = |(source, hour): &(Source, Hour)| {
            let memory = world.server_memory(*source);
            [
                source.name().to_owned(),
                number(hour.events),
                format!("{}/s", bytes(hour.egress)),
                percent(hour.load),
                format!("{}/s", bytes(hour.agent_bytes)),
                percent(hour.agent_cpu),
                late(hour.late),
                late(hour.late_in_rollout),
                percent(hour.load_of_rollout),
                bytes(world.list(*source)),
                if memory > 0.0 { format!("+ {}", bytes(memory)) } else { "–".to_owned() },
            ]
        };
        let _ = writeln!(text, "\n{} nodes, by where the agents have their peers from:\n", grouped(world.nodes));
        *text += &markdown(&heads, sources.iter().map(line));
    }
}

/// Where a load becomes uncomfortable, to two digits, between two clusters as a power of their size. None: beyond the last.
fn largest(loads: &[(f64, f64)]) -> Option<u64> {
    let pair = loads.windows(2).find(|pair| pair[0].1 < COMFORT && pair[1].1 >= COMFORT)?;
    let [(low, less), (high, more)] = [pair[0], pair[1]];
    let exponent = (COMFORT / less).ln() / (more / less).ln();
    let nodes = (low * (high / low).powf(exponent)) as u64;
    let unit = 10_u64.pow(nodes.ilog10().saturating_sub(1));
    Some(nodes / unit * unit)
}

fn plot(hours: &Hours) -> String {
    // What is kept matters in a rollout only.
    let shown = Source::ALL.into_iter().filter(|source| *source != Source::Kept);
    let line =
        |source: Source| Series { name: source.name().into(), points: series(hours, source, |hour| hour.egress) };
    let world = World::of(1);
    let plot = Plot {
        title: "What all API servers send to network agents while nothing special happens",
        across: "nodes",
        up: "bytes a second",
        series: shown.map(line).collect(),
        limit: Some(Limit { name: "all that three servers can send", value: world.servers * world.egress }),
    };
    plot.svg().unwrap_or_default()
}

fn late(seconds: Option<f64>) -> String {
    match seconds {
        None => "later and later".to_owned(),
        Some(seconds) if seconds >= 1.0 => format!("{seconds:.1} s"),
        Some(seconds) if seconds >= 0.0005 => format!("{:.0} ms", seconds * 1000.0),
        Some(_) => "< 1 ms".to_owned(),
    }
}

fn percent(part: f64) -> String {
    match part * 100.0 {
        percent if percent >= 10.0 => format!("{percent:.0} %"),
        percent if percent >= 0.1 => format!("{percent:.1} %"),
        percent if percent >= 0.001 => format!("{percent:.3} %"),
        percent if percent > 0.0 => "< 0.001 %".to_owned(),
        _ => "0 %".to_owned(),
    }
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", number(value), units[unit])
}

fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => grouped(value.round() as u64),
        _ if value >= 10.0 => format!("{value:.0}"),
        _ if value >= 0.1 => format!("{value:.1}"),
        _ if value > 0.0 => format!("{value:.2}"),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(["0 B", "640 B", "1.5 KB", "15 MB", "1,200 TB"], [0.0, 640.0, 1500.0, 15e6, 1.2e15].map(bytes)[..]);
        assert_eq!(
            ["0 %", "< 0.001 %", "0.005 %", "3.5 %", "120 %"],
            [0.0, 1e-6, 0.00005, 0.035, 1.2].map(percent)[..]
        );
        let times = [None, Some(0.0001), Some(0.012), Some(2.0)].map(late);
        assert_eq!(times, ["later and later", "< 1 ms", "12 ms", "2.0 s"]);
    }

    #[test]
    fn tables_go_where_their_place_is() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = within(&page, "new").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(within(&once, "new").unwrap(), once);
        assert!(within("a", "new").unwrap_err().contains("no place"));
    }

    #[test]
    fn between_two_clusters_the_load_is_a_power_of_their_size() {
        // As the square: a quarter is at half of the way from 0.0625 to 1.
        assert_eq!(largest(&[(1000.0, 0.0625), (4000.0, 1.0)]), Some(2000));
        assert_eq!(largest(&[(1000.0, 0.01), (4000.0, 0.2)]), None);
    }

    #[test]
    fn heartbeats_end_sooner() {
        let world = |nodes| World::of(nodes);
        let hours =
            |nodes| (world(nodes), Source::ALL.map(|source| (source, Hour::of(&world(nodes), source))).to_vec());
        let hours = [1_000, 10_000].map(hours);
        let [nodes, objects] = [Source::Nodes, Source::Objects].map(|source| largest(&loads(&hours, source)));
        assert!(nodes.is_some_and(|nodes| (3_000..6_000).contains(&nodes)), "{nodes:?}");
        assert_eq!(objects, None);
        let rollout = |source| series(&hours, source, |hour| hour.load_of_rollout)[1].1;
        assert!(rollout(Source::Kept) < rollout(Source::Objects) / 10.0, "what is kept need not be listed");
    }
}
