//! Tables of values: CSV (RFC 4180), with the names of the columns in the first line. Names are variables, so they are written as
//! variables are. Blanks around a name are not part of it; those around a value are. Empty lines are left out.

use ringwire::quote::quoted;

use super::template::check_name;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// The line in which each row begins.
    pub(crate) lines: Vec<usize>,
}

impl Rows {
    /// Reads it.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Rows, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{line}: it is not UTF-8")
        })?;
        let mut records = Records { rest: text, line: 1 };
        let (line, names) = records.next()?.ok_or("1: it is empty: the names of the columns are missing")?;
        let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
        for (place, name) in names.iter().enumerate() {
            check_name(name).map_err(|why| format!("{line}: {} cannot name a column: {why}", quoted(name)))?;
            if names[..place].contains(name) {
                return Err(format!("{line}: two columns are named {}", quoted(name)));
            }
        }
        let mut table = Rows { names, ..Rows::default() };
        while let Some((line, row)) = records.next()? {
            let (fields, columns) = (row.len(), table.names.len());
            if fields != columns {
                return Err(format!("{line}: the row has {fields} values, and there are {columns} columns"));
            }
            table.rows.push(row);
            table.lines.push(line);
        }
        match table.rows.is_empty() {
            true => Err(format!("{line}: there is no row behind the names of the columns")),
            false => Ok(table),
        }
    }
}

/// What is left of the text, and its first line.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

impl Records<'_> {
    /// The next record, with its first line.
    fn next(&mut self) -> Result<Option<(usize, Vec<String>)>, String> {
        while let Some(rest) = self.rest.strip_prefix('\n').or_else(|| self.rest.strip_prefix("\r\n")) {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            fields.push(self.field()?);
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return Ok(Some((line, fields))),
            }
        }
    }

    /// The next field, up to the comma or the end of line behind it.
    fn field(&mut self) -> Result<String, String> {
        let Some(quoted_from) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(if rest.starts_with(',') { field } else { field.strip_suffix('\r').unwrap_or(field) }.to_owned());
        };
        let begins = self.line;
        let mut field = String::new();
        self.rest = quoted_from;
        loop {
            let end = self.rest.find('"').ok_or_else(|| format!("{begins}: a quote is not closed"))?;
            field += &self.rest[..end];
            self.rest = &self.rest[end + 1..];
            match self.rest.strip_prefix('"') {
                // Two of them are one of the value.
                Some(rest) => self.rest = rest,
                None => break,
            }
            field.push('"');
        }
        self.line += field.matches('\n').count();
        let is_over = self.rest.is_empty() || [",", "\n", "\r\n"].iter().any(|end| self.rest.starts_with(end));
        if is_over { Ok(field) } else { Err(format!("{}: there is more behind a closing quote", self.line)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        type Lines<'a> = &'a [(usize, &'a [&'a str])];
        let rows: [(&str, &[&str], Lines<'_>); 8] = [
            ("a\n1", &["a"], &[(2, &["1"])]),
            ("a,b\r\n1,2\r\n3,\r\n", &["a", "b"], &[(2, &["1", "2"]), (3, &["3", ""])]),
            (" a ,\tb-c\n 1 ,2\n", &["a", "b-c"], &[(2, &[" 1 ", "2"])]),
            ("\"a\",\" b \"\n\"1,\"\"2\"\"\",\"\"\n", &["a", "b"], &[(2, &["1,\"2\"", ""])]),
            ("a,b\n\"1\n\n2\",3\n4,5", &["a", "b"], &[(2, &["1\n\n2", "3"]), (5, &["4", "5"])]),
            ("\n\na\n\n1\n\r\n2\n\n", &["a"], &[(5, &["1"]), (7, &["2"])]),
            ("a\n5\" pipe\n", &["a"], &[(2, &["5\" pipe"])]),
            ("a,b\nü,\"ö\"\"\"", &["a", "b"], &[(2, &["ü", "ö\""])]),
        ];
        for (text, names, values) in rows {
            let table = Rows::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(table.names, names, "{text:?}");
            let found: Vec<(usize, Vec<&str>)> = table
                .lines
                .iter()
                .zip(&table.rows)
                .map(|(line, row)| (*line, row.iter().map(String::as_str).collect()))
                .collect();
            let expected: Vec<(usize, Vec<&str>)> = values.iter().map(|(line, row)| (*line, row.to_vec())).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    /// Kills: a quote that swallows the rest of the file; a row that is too short and shifts nothing, so that nobody sees it.
    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let rows: [(&[u8], &str); 16] = [
            (b"", "1: it is empty"),
            (b"\n\r\n\n", "1: it is empty"),
            (b"a,b\n", "1: there is no row"),
            (b"\n\na,b\n\n", "3: there is no row"),
            (b"a,b\n1,2\n3\n", "3: the row has 1 values, and there are 2 columns"),
            (b"a,b\n\"1\n2\",2\n3,4,5\n", "4: the row has 3 values"),
            (b"a,b\n1,2\n\"3,4\n5,6\n", "3: a quote is not closed"),
            (b"a\n\"1\"\"\n", "2: a quote is not closed"),
            (b"a,b\n1,\"2\"3\n", "2: there is more behind a closing quote"),
            (b"a\n\"1\n2\" \n", "3: there is more behind a closing quote"),
            (b"user name,b\n1,2\n", "1: \"user name\" cannot name a column"),
            (b"a,\n1,2\n", "1: \"\" cannot name a column"),
            (b"1st\n1\n", "1: \"1st\" cannot name a column"),
            (b"a, session \n1,2\n", "1: \"session\" cannot name a column: {session} has a meaning already"),
            (b"a, a\n1,2\n", "1: two columns are named \"a\""),
            (b"a\n1\n\xff\n", "3: it is not UTF-8"),
        ];
        for (bytes, why) in rows {
            let text = String::from_utf8_lossy(bytes);
            let error = Rows::parse(bytes).expect_err(&text);
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
