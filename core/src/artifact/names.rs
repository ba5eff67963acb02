//! Names: which are valid, and what somebody may have meant by a wrong one.

/// What is wrong with an artifact's name, if anything is.
pub(super) fn fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an artifact needs a name, for example Custom.Linux.Something".to_owned());
    }
    let odd = |character: &char| {
        !(character.is_ascii_alphanumeric() || *character == '_' || *character == '.')
    };
    if let Some(character) = name.chars().find(odd) {
        return Some(format!(
            "{character:?} is not allowed in a name: use letters, digits, `_` and `.`"
        ));
    }
    let digits = |part: &&str| part.starts_with(|first: char| first.is_ascii_digit());
    name.split('.')
        .find(digits)
        .map(|part| format!("the part {part:?} of the name begins with a digit"))
}

/// The candidate that is nearest to a wrong name, if one is near.
pub(super) fn nearest<'n>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let lower = wrong.to_lowercase();
    let most = (wrong.chars().count() / 3).clamp(1, 5);
    candidates
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `: did you mean X` for an error text, or nothing.
pub(super) fn suggestion<'n>(wrong: &str, candidates: impl IntoIterator<Item = &'n str>) -> String {
    nearest(wrong, candidates)
        .map(|candidate| format!(": did you mean {candidate}"))
        .unwrap_or_default()
}

/// The number of characters to insert, remove, replace or swap with a neighbour.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX);
            let mut cost = at(&above, column) + usize::from(from != to);
            cost = cost
                .min(at(&above, column + 1) + 1)
                .min(at(&line, column) + 1);
            let swapped = row > 0
                && column > 0
                && left.get(row - 1) == Some(to)
                && right.get(column - 1) == Some(from);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            line.push(cost);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(fault("Custom.Linux_2.X"), None);
        assert!(fault("").is_some());
        assert!(fault("A-b").is_some_and(|text| text.contains("'-'")));
        assert!(fault("A.2b").is_some_and(|text| text.contains("2b")));
    }

    #[test]
    fn near_misses_are_found() {
        let names = [
            "Linux.Sys.Pslist",
            "Linux.Sys.Users",
            "Windows.System.Pslist",
        ];
        assert_eq!(nearest("Linux.Sys.PsList", names), Some("Linux.Sys.Pslist"));
        assert_eq!(nearest("Linux.Sys.Uesrs", names), Some("Linux.Sys.Users"));
        assert_eq!(nearest("MacOS.Applications", names), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
