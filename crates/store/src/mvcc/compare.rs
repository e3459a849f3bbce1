//! The compares of a transaction.

use std::cmp::Ordering;

use wire::etcdserverpb::compare::{CompareResult, CompareTarget};

use super::index::{Cursor, End, Span, Version};
use super::put::stored_value;
use super::range::Effort;
use super::{ReadFailure, View};
use crate::request::{Compare, Operand};

/// Whether a compare holds: for every key of its span, or, if there is none, for one that is all zeros (a compare
/// of values then never holds).
pub(super) fn holds(view: &View<'_>, compare: &Compare<'_>) -> Result<bool, ReadFailure> {
    let span = Span::of(compare.key, compare.range_end);
    if span.to == End::One {
        let row = view.index().get(compare.key, view.current);
        return match row {
            Some(row) => holds_for(view, compare, &row, &mut Vec::new()),
            None => Ok(holds_for_nothing(compare)),
        };
    }
    let mut cursor = Cursor::new(span);
    let (mut rows, mut record, mut any) = (Vec::new(), Vec::new(), false);
    let mut effort = Effort::new(view);
    while !cursor.is_done() {
        effort.step()?;
        rows.clear();
        view.index().advance(&mut cursor, view.current, |_, row| rows.push(*row));
        for row in &rows {
            any = true;
            if !holds_for(view, compare, row, &mut record)? {
                return Ok(false);
            }
        }
    }
    Ok(any || holds_for_nothing(compare))
}

fn is_by_value(compare: &Compare<'_>) -> bool {
    compare.target == CompareTarget::Value as i32
}

fn holds_for_nothing(compare: &Compare<'_>) -> bool {
    !is_by_value(compare) && result_holds(compare, order_of_numbers(compare, None))
}

fn holds_for(
    view: &View<'_>,
    compare: &Compare<'_>,
    row: &Version,
    record: &mut Vec<u8>,
) -> Result<bool, ReadFailure> {
    if !is_by_value(compare) {
        return Ok(result_holds(compare, order_of_numbers(compare, Some(row))));
    }
    record.clear();
    view.bytes.append(row.location, row.length, record)?;
    let operand = if let Operand::Value(value) = compare.operand { value } else { &[] };
    Ok(result_holds(compare, stored_value(record)?.cmp(operand)))
}

/// An operand that is missing, or of another target, counts as 0; an unknown target compares as equal.
fn order_of_numbers(compare: &Compare<'_>, row: Option<&Version>) -> Ordering {
    let stored = |number: fn(&Version) -> i64| row.map_or(0, number);
    let (stored, operand) = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            (stored(|row| row.version), if let Operand::Version(n) = compare.operand { n } else { 0 })
        }
        Ok(CompareTarget::Create) => (
            stored(|row| row.create_revision),
            if let Operand::CreateRevision(n) = compare.operand { n } else { 0 },
        ),
        Ok(CompareTarget::Mod) => (
            stored(|row| row.mod_revision),
            if let Operand::ModRevision(n) = compare.operand { n } else { 0 },
        ),
        Ok(CompareTarget::Lease) => {
            (stored(|row| row.lease), if let Operand::Lease(n) = compare.operand { n } else { 0 })
        }
        Ok(CompareTarget::Value) | Err(_) => (0, 0),
    };
    stored.cmp(&operand)
}

/// An unknown result always holds.
fn result_holds(compare: &Compare<'_>, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
