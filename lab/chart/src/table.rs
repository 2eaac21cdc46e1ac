//! Tables.

/// Between two columns of text.
const GAP: usize = 3;

/// A table in Markdown.
#[must_use]
pub fn markdown<R: AsRef<[String]>>(heads: &[String], rows: impl IntoIterator<Item = R>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rules = vec!["---".to_owned(); heads.len()];
    let rows = rows.into_iter().map(|row| line(row.as_ref()));
    [line(heads), line(&rules)].into_iter().chain(rows).collect()
}

/// Lines of text whose cells stand below each other.
#[must_use]
pub fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let padded = |(cell, width): (&String, &usize)| format!("{cell:width$}", width = width + GAP);
    let line =
        |line: &Vec<String>| format!("{}\n", line.iter().zip(&widths).map(padded).collect::<String>().trim_end());
    lines.iter().map(line).collect()
}

/// A number with a comma before each three digits.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_table_for_a_page_and_for_a_terminal() {
        let (heads, row) = (cells(&["nodes", "", "×"]), cells(&["10", "a", "x"]));
        assert_eq!(markdown(&heads, [&row]), "| nodes |  | × |\n| --- | --- | --- |\n| 10 | a | x |\n");
        assert_eq!(aligned(&[heads, row]), "nodes       ×\n10      a   x\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(["999", "1,000", "1,234,567"], [999, 1000, 1_234_567].map(grouped)[..]);
    }
}
