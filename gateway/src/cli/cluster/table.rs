//! Columns as wide as what is in them.

/// Rows under each other. Columns in which nothing stands but the title are left out.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let is_used = |column: &usize| {
        rows.iter()
            .skip(1)
            .any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()))
    };
    let widths: Vec<(usize, usize)> = (0..columns)
        .filter(is_used)
        .map(|column| (column, width(column)))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = widths
            .iter()
            .map(|&(column, width)| format!("{:width$}", row.get(column).map_or("", |cell| cell)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_empty_ones_are_left_out() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["A", "B", "C"]), row(["é1", "", "x"]), row(["2", "", "yy"])]);
        assert_eq!(text, "A   C\né1  x\n2   yy");
    }
}
