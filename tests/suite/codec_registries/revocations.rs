//! Lists of revocations: renewed, continued, lost, published by several people, and signed with another key.

use std::time::Instant;

use ktables_tests::{CommandOutput, TIMEOUT, run};
use serde_json::json;

use crate::codec_registries::policies::Approved;
use crate::codec_registries::text;

/// A policy with a list of revocations in a file.
const POLICY: &str = "[[rule]]\n[revocations]\nsource = \"revocations.json\"\nsigned_by = [\"platform-2026\", \
                      \"platform-2027\"]\nwhen_stale = \"refuse\"\n";

impl Approved {
    /// Runs `codec revocations renew` of the list.
    fn renew(&self, more: &[&str]) -> CommandOutput {
        let args = ["codec", "revocations", "renew", "revocations.json", "--key", "platform-2026.key"];
        run(&mut self.workspace.ktables(&[&args, more].concat()))
    }

    /// Runs `codec revoke` of a digest of which only this number is known.
    fn revoke(&self, number: usize, more: &[&str]) -> CommandOutput {
        let digest = format!("sha256:{number:064x}");
        let args = ["codec", "revoke", &digest, "--reason", "wrong", "--key", "platform-2026.key"];
        run(&mut self.workspace.ktables(&[&args, more].concat()))
    }
}

#[test]
fn a_list_of_revocations_is_renewed() {
    let approved = Approved::new();
    approved.policy(POLICY);
    let renew = |more: &[&str]| approved.renew(more);
    let error = renew(&[]);
    assert!(
        error.code == 2 && error.stderr.contains("or begin an empty list with --empty"),
        "{}",
        error.stderr
    );
    let short = renew(&["--empty", "--valid", "1s"]);
    assert_eq!((&short.json()[0]["serial"], &short.json()[0]["revoked"]), (&json!(1), &json!(0)));
    let until = Instant::now() + TIMEOUT;
    while approved.run(&["policy", "check"]).0 == 0 {
        assert!(Instant::now() < until, "the list expires");
    }
    approved.refuse("cannot check revocations: ");
    assert_eq!(renew(&[]).json()[0]["serial"], 2);
    approved.approve();
    // The file was lost.
    std::fs::remove_file(approved.workspace.path("revocations.json")).unwrap();
    assert_eq!(renew(&["--empty"]).json()[0]["serial"], 1);
    approved.refuse("which is older than list 2");
    assert_eq!(renew(&["--empty"]).code, 2);
    assert_eq!(renew(&["--serial", "7"]).json()[0]["serial"], 7);
    approved.approve();
    let error = renew(&["--serial", "7"]);
    assert!(error.code == 2 && error.stderr.contains("so the next one is 8 at least"), "{}", error.stderr);
    // What is revoked stays revoked.
    let component = text(&approved.pushed, "component");
    let revoke = ["codec", "revoke", &component, "--reason", "wrong", "--key", "platform-2026.key"];
    approved.workspace.succeed(&revoke);
    assert_eq!(renew(&[]).json()[0]["revoked"], 1);
    approved.refuse("by list 9 (wrong)");
    // A list that was published is fetched, and continued.
    let published = format!("oci://{}/codecs/revocations:current", approved.registry.host());
    approved.workspace.succeed(&["codec", "revocations", "push", "revocations.json", &published]);
    std::fs::remove_file(approved.workspace.path("revocations.json")).unwrap();
    let pulled = approved.workspace.succeed(&["codec", "revocations", "pull", &published]);
    assert_eq!((&pulled["serial"], &pulled["revoked"]), (&json!(9), &json!(1)));
    assert_eq!(renew(&[]).json()[0]["serial"], 10);
    // It does not replace a newer one that is not published.
    let error = approved.workspace.fail(&["codec", "revocations", "pull", &published], 1);
    assert!(error.contains("it is list 10, and list 9 is published"), "{error}");
}

#[test]
fn revocations_of_several_people_are_not_lost() {
    let approved = Approved::new();
    approved.policy(POLICY);
    assert_eq!(approved.renew(&["--empty"]).code, 0);
    // At once, on the same file.
    std::thread::scope(|scope| {
        for number in 0..8 {
            let approved = &approved;
            scope.spawn(move || assert_eq!(approved.revoke(number, &[]).code, 0));
        }
    });
    assert_eq!(approved.renew(&[]).json()[0]["revoked"], 8);
    // Two people change copies of the same list. The second push is refused.
    let copy = |name: &str| {
        std::fs::copy(approved.workspace.path("revocations.json"), approved.workspace.path(name)).unwrap();
    };
    copy("a.json");
    copy("b.json");
    assert_eq!(
        (approved.revoke(8, &["--list", "a.json"]).code, approved.revoke(9, &["--list", "b.json"]).code),
        (0, 0)
    );
    let published = format!("oci://{}/codecs/revocations:current", approved.registry.host());
    let push = |name: &str| {
        run(&mut approved.workspace.ktables(&["codec", "revocations", "push", name, &published]))
    };
    assert_eq!((push("a.json").code, push("a.json").code), (0, 0), "the same list again");
    let second = push("b.json");
    assert!(second.code == 1 && second.stderr.contains("which is no newer one"), "{}", second.stderr);
    // A reader that has seen one of them does not take the other one for newer.
    std::fs::rename(approved.workspace.path("a.json"), approved.workspace.path("revocations.json")).unwrap();
    approved.approve();
    std::fs::rename(approved.workspace.path("b.json"), approved.workspace.path("revocations.json")).unwrap();
    approved.refuse("the source provides another list 11 than the one that ktables has already seen");
}

#[test]
fn a_list_is_continued_with_another_key() {
    let approved = Approved::new();
    approved.policy(POLICY);
    assert_eq!((approved.renew(&["--empty"]).code, approved.revoke(1, &[]).code), (0, 0));
    let with_new = ["codec", "revocations", "renew", "revocations.json", "--key", "platform-2027.key"];
    let error = approved.workspace.fail(&with_new, 1);
    assert!(error.contains("list 2 is not signed with this key") && error.contains("--signed-by"), "{error}");
    let with_old = [&with_new[..], &["--signed-by", "platform-2026.pub"]].concat();
    assert_eq!(approved.workspace.succeed(&with_old)["revoked"], 1);
    let inspect = ["codec", "revocations", "inspect", "revocations.json", "--key", "platform-2027.pub"];
    assert_eq!(approved.workspace.succeed(&inspect)["serial"], json!(3));
    approved.approve();
}

#[test]
fn what_is_no_list_is_not_written() {
    let approved = Approved::new();
    assert_eq!(approved.renew(&["--empty"]).code, 0);
    let before = std::fs::read(approved.workspace.path("revocations.json")).unwrap();
    // It would be too large to be read.
    let reason = "x".repeat(100_000);
    let mut last = approved.revoke(0, &[]);
    for number in 0..12 {
        let digest = format!("sha256:{number:064x}");
        let args = ["codec", "revoke", &digest, "--reason", &reason, "--key", "platform-2026.key"];
        last = run(&mut approved.workspace.ktables(&args));
        if last.code != 0 {
            break;
        }
    }
    assert!(last.code == 1 && last.stderr.contains("and the limit is 1048576"), "{}", last.stderr);
    assert_eq!(approved.renew(&[]).code, 0);
    // A bundle has lists only.
    std::fs::write(approved.workspace.path("revocations.json"), "{}").unwrap();
    approved.workspace.succeed(&["codec", "lock"]);
    let bundle = [
        "codec",
        "bundle",
        "-o",
        "bundle",
        &text(&approved.pushed, "reference"),
        "--revocations",
        "revocations.json",
    ];
    let error = approved.workspace.fail(&bundle, 1);
    assert!(error.contains("revocations.json: cannot check revocations"), "{error}");
    std::fs::write(approved.workspace.path("revocations.json"), before).unwrap();
    approved.workspace.succeed(&bundle);
}
