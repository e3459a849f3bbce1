//! `-w table`: box lines, heads in upper case and centred, cells to the right.

use std::io::{Result, Write};

use unicode_width::UnicodeWidthStr;

/// A table; underscores of heads become spaces.
pub(super) fn write<const N: usize>(
    out: &mut dyn Write,
    heads: &[&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    let heads = heads.map(|head| head.to_uppercase().replace('_', " "));
    let widths: [usize; N] =
        std::array::from_fn(|n| rows.iter().chain([&heads]).map(|row| row[n].width()).max().unwrap_or(0));

    rule(out, &widths, ["┌", "┬", "┐"])?;
    line(out, &heads, &widths, |free| free / 2)?;
    if !rows.is_empty() {
        rule(out, &widths, ["├", "┼", "┤"])?;
    }
    rows.iter().try_for_each(|row| line(out, row, &widths, |free| free))?;
    rule(out, &widths, ["└", "┴", "┘"])
}

fn rule(out: &mut dyn Write, widths: &[usize], [left, middle, right]: [&str; 3]) -> Result<()> {
    let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    writeln!(out, "{left}{}{right}", parts.join(middle))
}

/// `before` says how much of a cell's free width stands to the left of its text.
fn line(
    out: &mut dyn Write,
    cells: &[String],
    widths: &[usize],
    before: impl Fn(usize) -> usize,
) -> Result<()> {
    for (cell, width) in cells.iter().zip(widths) {
        let free = width - cell.width();
        let left = before(free);
        write!(out, "│ {}{cell}{} ", " ".repeat(left), " ".repeat(free - left))?;
    }
    writeln!(out, "│")
}
