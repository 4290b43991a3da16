//! Output and exit codes of `portico resolve`.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// Gives one prepared answer and checks what it is asked.
struct Prepared {
    asked: (&'static str, &'static str),
    answer: Value,
}

impl Answerer for Prepared {
    fn compile(&self, path: &Path) -> anyhow::Result<Snapshot> {
        anyhow::bail!("cannot read {}", path.display())
    }

    fn ask(&self, name: &str, rtype: &str) -> anyhow::Result<Value> {
        assert_eq!((name, rtype), self.asked);
        Ok(self.answer.clone())
    }
}

fn args(name: &str, rtype: Option<&str>, output: ResolveOutput) -> ResolveArgs {
    ResolveArgs {
        name: name.to_owned(),
        rtype: rtype.map(str::to_owned),
        file: None,
        trace: false,
        output,
        manifests: ManifestOptions {
            namespace: "default".into(),
            strict: false,
        },
        cluster: ClusterOptions::default(),
    }
}

fn check(
    args: &ResolveArgs,
    asked: (&'static str, &'static str),
    answer: &Value,
    code: ExitCode,
    text: &str,
) {
    let mut out = Vec::new();
    let result = run(
        args,
        &Prepared {
            asked,
            answer: answer.clone(),
        },
        &mut out,
    )
    .unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), text);
    assert_eq!(format!("{result:?}"), format!("{code:?}"));
}

#[test]
fn resolve_found_prints_records_and_succeeds() {
    let record = json!({"name": "echo.", "type": "A", "ttl": 5, "data": "127.96.1.2"});
    let answer =
        json!({"rcode": "NOERROR", "answers": [record], "authority": [], "additional": []});
    let args = args("echo", None, ResolveOutput::Text);
    check(
        &args,
        ("echo.", "A"),
        &answer,
        ExitCode::SUCCESS,
        "echo. 5 IN A 127.96.1.2\n",
    );
}

#[test]
fn resolve_not_found_says_so_and_fails() {
    let explain = |rcode: &str, text: &str| {
        let answer = json!({"rcode": rcode, "answers": []});
        check(
            &args("10.1.0.2", None, ResolveOutput::Text),
            ("2.0.1.10.in-addr.arpa.", "PTR"),
            &answer,
            ExitCode::FAILURE,
            text,
        );
    };
    explain(
        "NOERROR",
        "NODATA: the name exists, but has no records of this type\n",
    );
    explain("NXDOMAIN", "NXDOMAIN: the name does not exist\n");
    explain("REFUSED", "REFUSED: the name is in none of our zones\n");
    let by_others = json!({"rcode": "SERVFAIL", "answers": [], "byOthers": true});
    let reason =
        json!({"rcode": "SERVFAIL", "answers": [], "reason": "no answer from 192.0.2.1:53"});
    for (answer, expected) in [
        (
            by_others,
            "SERVFAIL: so say the DNS servers that portico asks\n",
        ),
        (reason, "SERVFAIL: no answer from 192.0.2.1:53\n"),
    ] {
        let mut out = Vec::new();
        assert!(!write_value(&answer, ResolveOutput::Text, &mut out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn resolve_json_prints_the_answer_as_it_came() {
    let answer = json!({"rcode": "NXDOMAIN", "authoritative": true, "answers": []});
    let text = format!("{answer}\n");
    let args = args("echo.", Some("srv"), ResolveOutput::Json);
    check(&args, ("echo.", "SRV"), &answer, ExitCode::FAILURE, &text);
}

#[test]
fn resolve_question_that_cannot_be_read_is_an_error() {
    let ask = |name: &str, rtype: &str| {
        let answerer = Prepared {
            asked: ("", ""),
            answer: Value::Null,
        };
        let error = run(
            &args(name, Some(rtype), ResolveOutput::Text),
            &answerer,
            &mut Vec::new(),
        )
        .unwrap_err();
        format!("{error:#}")
    };
    assert_eq!(
        ask("a..b", "A"),
        "cannot ask for \"a..b\": name has an empty label"
    );
    assert_eq!(
        ask("a", "B"),
        "unknown record type \"B\": give a name such as A or SRV, or TYPE and a number"
    );
}

#[test]
fn resolve_with_file_reads_it_instead_of_asking() {
    let args = ResolveArgs {
        file: Some("shop.yaml".into()),
        ..args("a", None, ResolveOutput::Text)
    };
    let answerer = Prepared {
        asked: ("", ""),
        answer: Value::Null,
    };
    assert_eq!(
        run(&args, &answerer, &mut Vec::new())
            .unwrap_err()
            .to_string(),
        "cannot read shop.yaml"
    );
}

/// Knows one name, and that another one exists.
struct Names;

impl Answerer for Names {
    fn compile(&self, path: &Path) -> anyhow::Result<Snapshot> {
        anyhow::bail!("cannot read {}", path.display())
    }

    fn ask(&self, name: &str, rtype: &str) -> anyhow::Result<Value> {
        let (rcode, answers) = match name {
            "web.shop.svc.cluster.local." => {
                let record = json!({"name": name, "type": rtype, "ttl": 5, "data": "127.96.1.2"});
                ("NOERROR", vec![record])
            }
            "shop.default.svc.cluster.local." => ("NOERROR", Vec::new()),
            _ if name.ends_with("cluster.local.") => ("NXDOMAIN", Vec::new()),
            _ => ("REFUSED", Vec::new()),
        };
        Ok(json!({"rcode": rcode, "answers": answers}))
    }
}

fn traced(name: &str, output: ResolveOutput) -> (String, bool) {
    let args = ResolveArgs {
        trace: true,
        ..args(name, None, output)
    };
    let mut out = Vec::new();
    let code = run(&args, &Names, &mut out).unwrap();
    let is_found = format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS);
    (String::from_utf8(out).unwrap(), is_found)
}

#[test]
fn resolve_trace_walks_the_search_list_until_a_candidate_has_records() {
    let (text, is_found) = traced("web.shop", ResolveOutput::Text);
    assert_eq!(
        text,
        "search default.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5 (1 dot is fewer than 5: the search list comes first)\n\
         1. web.shop.default.svc.cluster.local.  NXDOMAIN: the name does not exist\n\
         2. web.shop.svc.cluster.local.          NOERROR: A 127.96.1.2\n\
         The application gets the records of web.shop.svc.cluster.local.\n"
    );
    assert!(is_found);
}

#[test]
fn resolve_trace_of_nothing_says_so_and_goes_on_where_a_name_has_no_records() {
    let (text, is_found) = traced("shop", ResolveOutput::Text);
    let steps: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(
        steps,
        [
            "1. shop.default.svc.cluster.local.  NODATA: it exists without such records (musl ends its search here, glibc goes on)",
            "2. shop.svc.cluster.local.          NXDOMAIN: the name does not exist",
            "3. shop.cluster.local.              NXDOMAIN: the name does not exist",
            "4. shop.                            REFUSED: the name is in none of our zones",
            "The application gets no A record: no candidate has one",
        ]
    );
    assert!(!is_found);
}

#[test]
fn resolve_trace_order_depends_on_dots_and_the_last_one() {
    let steps = |name: &str| {
        let (text, _) = traced(name, ResolveOutput::Json);
        let trace: Value = serde_json::from_str(&text).unwrap();
        let steps = trace["steps"].as_array().unwrap().clone();
        let names: Vec<String> = steps
            .iter()
            .map(|step| step["name"].as_str().unwrap().to_owned())
            .collect();
        (names, trace["answeredBy"].clone())
    };
    let whole = "web.shop.svc.cluster.local.";
    assert_eq!(steps(whole), (vec![whole.to_owned()], json!(whole)));
    let (names, winner) = steps("a.b.c.d.e.f");
    assert_eq!(names.len(), 4);
    assert_eq!((&*names[0], winner), ("a.b.c.d.e.f.", Value::Null));
    let (names, winner) = steps("web.shop.svc.cluster.local");
    assert_eq!(names.len(), 4, "four dots: the search list comes first");
    assert_eq!(winner, json!(whole));
    assert_eq!(steps("10.1.0.2").0, ["2.0.1.10.in-addr.arpa."]);
}
