//! The machine as boxes: packages hold cores, cores hold threads, caches lie beneath those who
//! share them.

use crate::machine::{Cache, Cpu, Machine};

use super::svg::{self, Page};

const PAD: f64 = 14.0;
const CORE_WIDTH: f64 = 150.0;
const CORE_HEIGHT: f64 = 118.0;
const SHARED: f64 = 30.0;
/// More cores than this are drawn as a number.
const MOST: usize = 32;

/// The picture.
pub fn draw(machine: &Machine, pair: Option<(usize, usize)>) -> String {
    Page::ALL.map(|page| draw_for(page, machine, pair)).concat()
}

fn draw_for(page: Page, machine: &Machine, pair: Option<(usize, usize)>) -> String {
    let mut packages: Vec<u32> = machine.cpus.iter().map(|cpu| cpu.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut content = String::new();
    let mut y = 2.0;
    for package in packages {
        let (drawn, height) = draw_package(machine, package, pair, (page.width(), y));
        content.push_str(&drawn);
        y += height + PAD;
    }
    svg::picture(page, y, "Cores, threads and caches", &content)
}

/// One package at `y` on a page of that width, and its height.
fn draw_package(
    machine: &Machine,
    package: u32,
    pair: Option<(usize, usize)>,
    (page_width, y): (f64, f64),
) -> (String, f64) {
    let all: Vec<Vec<&Cpu>> = machine
        .cores()
        .into_iter()
        .filter(|(key, _)| key.0 == package)
        .map(|(_, cpus)| cpus)
        .collect();
    let shown = &all[..all.len().min(MOST)];
    let per_row = (((page_width - 2.0 * PAD + PAD) / (CORE_WIDTH + PAD)) as usize).max(1);
    let rows = shown.len().div_ceil(per_row);
    let shared = shared_caches(&all);
    let cores_height = rows as f64 * (CORE_HEIGHT + PAD);
    let height = 34.0 + cores_height + shared.len() as f64 * (SHARED + PAD);
    let wide = (per_row.min(shown.len()) as f64) * (CORE_WIDTH + PAD) + PAD;
    let width = wide.max(420.0);
    let mut content =
        svg::block((1.0, y), (width, height), "package", &format!("package {package}"));
    let more = if all.len() > MOST { format!(", {MOST} of them drawn") } else { String::new() };
    content.push_str(&svg::words(
        PAD,
        y + 23.0,
        "group",
        format!(
            "package {package}: {} core{}{more}",
            all.len(),
            if all.len() == 1 { "" } else { "s" }
        ),
    ));
    let stretch = (width - PAD) / per_row.min(shown.len()).max(1) as f64 - PAD;
    for (index, core) in shown.iter().enumerate() {
        let x = PAD + (index % per_row) as f64 * (stretch + PAD);
        let top = y + 34.0 + (index / per_row) as f64 * (CORE_HEIGHT + PAD);
        content.push_str(&draw_core(core, pair, (x, top), stretch));
    }
    for (index, cache) in shared.iter().enumerate() {
        let top = y + 34.0 + cores_height + index as f64 * (SHARED + PAD);
        content.push_str(&svg::block(
            (PAD, top),
            (width - 2.0 * PAD, SHARED),
            "cache",
            "shared cache",
        ));
        content.push_str(&svg::words(width / 2.0, top + 20.0, "label middle", name(cache)));
    }
    (content, height)
}

fn draw_core(core: &[&Cpu], pair: Option<(usize, usize)>, at: (f64, f64), width: f64) -> String {
    let (x, y) = at;
    let mut content = svg::block(at, (width, CORE_HEIGHT), "core", "core");
    let number = core.first().map_or(0, |cpu| cpu.core);
    content.push_str(&svg::words(x + 10.0, y + 19.0, "tick", format!("core {number}")));
    let chip = (width - 10.0) / core.len().max(1) as f64 - 10.0;
    for (index, cpu) in core.iter().enumerate() {
        let left = x + 10.0 + index as f64 * (chip + 10.0);
        let measured = pair.is_some_and(|(a, b)| a == cpu.id || b == cpu.id);
        let class = if measured { "thread measured" } else { "thread" };
        content.push_str(&svg::block(
            (left, y + 28.0),
            (chip, 34.0),
            class,
            &format!("hardware thread {}", cpu.id),
        ));
        let class = if measured { "on middle" } else { "label middle" };
        content.push_str(&svg::words(left + chip / 2.0, y + 50.0, class, cpu.id));
    }
    let own: Vec<&Cache> = core.first().map_or(Vec::new(), |cpu| {
        cpu.caches.iter().filter(|cache| !is_shared(cache, core)).collect()
    });
    let first: Vec<String> =
        own.iter().filter(|cache| cache.level == 1).map(|cache| name(cache)).collect();
    let second: Vec<String> =
        own.iter().filter(|cache| cache.level > 1).map(|cache| name(cache)).collect();
    content.push_str(&svg::words(x + width / 2.0, y + 82.0, "tick middle", first.join("  ")));
    content.push_str(&svg::words(x + width / 2.0, y + 102.0, "tick middle", second.join("  ")));
    content
}

/// Whether others than this core's threads use the cache.
fn is_shared(cache: &Cache, core: &[&Cpu]) -> bool {
    cache.shared_by.iter().any(|id| !core.iter().any(|cpu| cpu.id == *id))
}

/// The caches that several cores of a package share, each once.
fn shared_caches<'a>(cores: &[Vec<&'a Cpu>]) -> Vec<&'a Cache> {
    let mut shared: Vec<&Cache> = Vec::new();
    for core in cores {
        for cache in core.first().map_or(&[][..], |cpu| &cpu.caches) {
            if is_shared(cache, core) && !shared.contains(&cache) {
                shared.push(cache);
            }
        }
    }
    shared
}

fn name(cache: &Cache) -> String {
    let kind = match cache.kind.as_str() {
        "Data" => "d",
        "Instruction" => "i",
        _ => "",
    };
    let size = cache.size.strip_suffix('K').and_then(|size| size.parse::<u64>().ok());
    let size = size.map_or(cache.size.clone(), |kib| {
        if kib >= 1024 && kib % 1024 == 0 {
            format!("{} MiB", kib / 1024)
        } else {
            format!("{kib} KiB")
        }
    });
    format!("L{}{kind} {size}", cache.level)
}
