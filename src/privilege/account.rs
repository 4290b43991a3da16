//! A user and its groups, from passwd(5) and group(5). Owns what `USER[:GROUP]` means.

use std::{collections::BTreeSet, fs, path::PathBuf, str::FromStr};

use portico_core::object::decode::closest;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// As it was given.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All its groups, that one included.
    pub groups: Vec<u32>,
    /// Its home, if it has one.
    pub home: Option<PathBuf>,
}

impl FromStr for Account {
    type Err = String;

    /// `USER`, `USER:GROUP`, each a name or a number.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        find(text, &read("/etc/passwd"), &read("/etc/group"))
    }
}

fn find(text: &str, users: &str, groups: &str) -> Result<Account, String> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let line = entry(users, name);
    let column = |index: usize| line.as_ref().and_then(|line| line.get(index).copied());
    let number = |index: usize| column(index).and_then(|text| text.parse::<u32>().ok());
    let uid = number(2).or_else(|| name.parse().ok());
    let uid = uid.ok_or_else(|| unknown("user", name, users))?;
    if uid == 0 {
        return Err(
            "root is whom portico is not to stay: name another user, or leave it out".to_owned(),
        );
    }
    let gid = match group {
        Some(group) => {
            let line = entry(groups, group);
            let gid = line.and_then(|line| line.get(2)?.parse().ok());
            let gid = gid.or_else(|| group.parse().ok());
            gid.ok_or_else(|| unknown("group", group, groups))?
        }
        None => number(3).ok_or_else(|| {
            format!("no line of /etc/passwd has user {uid}: name its group, too, as in {uid}:{uid}")
        })?,
    };
    // A number without a name is a member of nothing: an empty list of members must not name it.
    let login = column(0).filter(|login| !login.is_empty());
    let others = groups.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split(':').collect();
        let is_member = columns
            .get(3)?
            .split(',')
            .any(|member| Some(member) == login);
        columns.get(2)?.parse().ok().filter(|_| is_member)
    });
    let all: BTreeSet<u32> = others.chain([gid]).collect();
    let home = column(5).filter(|home| home.starts_with('/'));
    Ok(Account {
        name: name.to_owned(),
        uid,
        gid,
        groups: all.into_iter().collect(),
        home: home.map(PathBuf::from),
    })
}

/// The columns of the line with this name, or this number.
fn entry<'a>(table: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    let lines = || {
        table
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
    };
    let by = |index: usize| {
        lines().find(|columns| !wanted.is_empty() && columns.get(index) == Some(&wanted))
    };
    by(0).or_else(|| by(2))
}

fn unknown(kind: &str, name: &str, table: &str) -> String {
    let file = if kind == "user" {
        "/etc/passwd"
    } else {
        "/etc/group"
    };
    let names = table.lines().filter_map(|line| line.split(':').next());
    let near = closest(name, names).map(|near| format!(", did you mean '{near}'?"));
    let near = near.unwrap_or_else(|| "; a number will do".to_owned());
    format!("there is no {kind} '{name}' in {file}{near}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/:/bin/sh\nwww:x:33:34::/var/www:/bin/false\nbare:x:40:40::nowhere:\n";
    const GROUPS: &str = "root:x:0:\nweb:x:34:\nlogs:x:35:bare,www\nssl:x:36:www\n";

    fn check(text: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let found = find(text, USERS, GROUPS);
        let found = found
            .as_ref()
            .map(|found| (found.uid, found.gid, &*found.groups));
        assert_eq!(found.map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn account_is_a_name_or_number_with_all_its_groups() {
        check("www", Ok((33, 34, &[34, 35, 36])));
        check("33", Ok((33, 34, &[34, 35, 36])));
        check("www:ssl", Ok((33, 36, &[35, 36])));
        check("www:1000", Ok((33, 1000, &[35, 36, 1000])));
        check("1000:1000", Ok((1000, 1000, &[1000])));
        assert_eq!(
            find("www", USERS, GROUPS).unwrap().home,
            Some("/var/www".into())
        );
        assert_eq!(find("bare", USERS, GROUPS).unwrap().home, None);
    }

    #[test]
    fn account_that_is_none_says_what_may_have_been_meant() {
        check(
            "wwww",
            Err("there is no user 'wwww' in /etc/passwd, did you mean 'www'?"),
        );
        check(
            "www:sl",
            Err("there is no group 'sl' in /etc/group, did you mean 'ssl'?"),
        );
        check(
            "postgres",
            Err("there is no user 'postgres' in /etc/passwd; a number will do"),
        );
        check(
            "root",
            Err("root is whom portico is not to stay: name another user, or leave it out"),
        );
        check(
            "",
            Err("there is no user '' in /etc/passwd; a number will do"),
        );
        check(
            "1000",
            Err("no line of /etc/passwd has user 1000: name its group, too, as in 1000:1000"),
        );
    }
}
