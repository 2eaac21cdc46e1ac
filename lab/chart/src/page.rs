//! A page that people write, with a part that a program writes.

/// The page with everything between two lines replaced; none if it lacks them.
#[must_use]
pub fn replaced(page: &str, (begin, end): (&str, &str), made: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", made.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_is_replaced() {
        let lines = ("<!-- made -->", "<!-- end -->");
        let page = "before\n<!-- made -->\nold\n<!-- end -->\nafter\n";
        let once = replaced(page, lines, "new\n").unwrap();
        assert_eq!(once, "before\n<!-- made -->\n\nnew\n\n<!-- end -->\nafter\n");
        assert_eq!(replaced(&once, lines, "new").as_deref(), Some(once.as_str()));
        assert_eq!(replaced("<!-- end -->\n<!-- made -->", lines, "new"), None);
        assert_eq!(replaced("nothing", lines, "new"), None);
    }
}
