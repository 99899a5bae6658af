//! Tables and numbers for people.

/// Columns as wide as their widest cell. Cells that begin with a digit stand at the right edge.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row, as many cells as heads.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a cell for each column: {cells:?}");
        self.rows.push(cells);
    }

    /// The lines, without a trailing line break.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let is_number = |column: usize| {
            let mut cells = self.rows.iter().map(|row| row[column].as_str()).filter(|cell| *cell != "-").peekable();
            cells.peek().is_some() && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
        };
        let right: Vec<bool> = (0..self.head.len()).map(is_number).collect();
        let line = |cells: &Vec<String>| {
            let padded: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(column, cell)| match right[column] {
                    true => format!("{cell:>0$}", widths[column]),
                    false => format!("{cell:<0$}", widths[column]),
                })
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        std::iter::once(&self.head).chain(&self.rows).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// 1234567 as "1,234,567".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 image", "2 images".
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{Table, counted, grouped};

    #[test]
    fn one_is_not_many() {
        assert_eq!(["0 images", "1 image", "1,000 images"], [0, 1, 1000].map(|number| counted(number, "image")));
    }

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = Table::new(&["image", "bytes"]);
        table.row(vec!["a.png".into(), grouped(1_234_567)]);
        table.row(vec!["longer.png".into(), grouped(12)]);
        assert_eq!(table.render(), "image           bytes\na.png       1,234,567\nlonger.png         12");
    }
}
